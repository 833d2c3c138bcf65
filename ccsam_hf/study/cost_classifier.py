"""The classifier part of a step by itself: plain, in closed form, and as a loop over classes."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..losses import CrossEntropy, Target, logit_gradient
from ..sam import RadiusRule, class_groups, linear_weight_norm, shifted_logits, unit_logit_shift
from .cost_setting import LOOP, Setting


def loop_loss(features: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, class_counts: Tensor) -> Tensor:
    """The perturbed loss as the released algorithm finds it: for every class present one backward pass through the
    retained graph for its gradient, moved weights, and a forward pass of the classifier over its samples."""
    logits = F.linear(features, weight, bias)
    weight_norm, number = linear_weight_norm(weight, bias)
    rule = RadiusRule(radius_scale=0.01)
    total = features.new_zeros(())
    for c in labels.unique().tolist():
        members = labels == c
        loss = F.cross_entropy(logits[members], labels[members])
        g_weight, g_bias = torch.autograd.grad(loss, [weight, bias], retain_graph=True)
        norm = torch.sqrt(g_weight.square().sum() + g_bias.square().sum())
        length = rule.lengths(norm[None], class_counts[c : c + 1], weight_norm, number)[0]
        moved = F.linear(features[members], weight + length * g_weight / norm, bias + length * g_bias / norm)
        total = total + F.cross_entropy(moved, labels[members], reduction="sum")
    return total / len(labels)


def closed_form_loss(features: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, class_counts: Tensor) -> Tensor:
    """The same loss by the closed form."""
    loss, target = CrossEntropy(len(weight)), Target(labels)
    logits = F.linear(features, weight, bias)
    groups = class_groups(labels, class_counts)
    shift, grad_norm = unit_logit_shift(features, logit_gradient(loss, logits, target), groups, True)
    weight_norm, number = linear_weight_norm(weight, bias)
    lengths = RadiusRule(radius_scale=0.01).lengths(grad_norm, class_counts, weight_norm, number)
    return loss(shifted_logits(logits, shift, lengths, groups), target).mean()


def plain_loss(features: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, class_counts: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(features, weight, bias), labels)


def classifier_steps(batch: int, dim: int, classes: int, device: torch.device) -> dict[str, Callable[[], None]]:
    """Forward and backward of the classifier part alone, by each way."""
    setting = Setting("", 1, batch, classes)
    labels, counts = setting.batch(device)["labels"], setting.class_counts().to(device)
    generator = torch.Generator().manual_seed(0)
    features, weight = (torch.randn(n, dim, generator=generator).to(device) for n in (batch, classes))
    leaves = [features.requires_grad_(), (0.02 * weight).requires_grad_(), torch.zeros(classes, device=device)]
    leaves[2].requires_grad_()

    def step(loss: Callable[..., Tensor]) -> Callable[[], None]:
        return lambda: torch.autograd.backward(loss(*leaves, labels, counts), inputs=leaves)

    ways = {"plain": plain_loss, "CC-SAM classifier": closed_form_loss, LOOP: loop_loss}
    return {name: step(loss) for name, loss in ways.items()}
