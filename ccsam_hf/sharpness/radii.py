"""Class gradients, characteristic radii, and whether rarer classes have larger ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

from ccsam_hf.sharpness.objective import Objective
from ccsam_hf.sharpness.pieces import Keep, compute_anew

Loss = Callable[[Tensor, Tensor], Tensor]


def class_gradient_norms(
    objective: Objective, labels: Tensor, num_classes: int, keep: Keep = compute_anew
) -> tuple[Tensor, Tensor]:
    """Mean loss L_c and ‖g_c‖ = ‖∇_θ L_c‖ for each class, [C] and [C] in float64; NaN for a class without samples."""
    losses = objective.losses(objective.start).double().cpu()
    labels = labels.cpu()
    means = torch.full((num_classes,), torch.nan, dtype=torch.float64)
    norms = means.clone()

    def norm(inside: Tensor) -> float:
        weights = (inside.double() / inside.sum()).to(objective.start.device)
        return float(objective.gradient(weights).double().norm())

    for label in tqdm(range(num_classes), desc="class gradients", leave=False, disable=None):
        inside = labels == label
        if inside.any():
            means[label] = losses[inside].mean()
            norms[label] = keep(f"class {label}", partial(norm, inside))
    return means, norms


def linear_class_gradient_norms(
    features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor | None, loss: Loss, num_classes: int
) -> tuple[Tensor, Tensor]:
    """`class_gradient_norms` of a linear classifier without ever forming a gradient of C x d numbers.

    ‖g_c‖² = m⁻² Σ_ij ⟨δ_i, δ_j⟩ (⟨z_i, z_j⟩ + [bias]) over the m samples of class c, δ_i = ∂l_i/∂logits_i.
    """
    means = torch.full((num_classes,), torch.nan, dtype=torch.float64)
    norms = means.clone()
    for label in labels.unique().tolist():
        inside = labels == label
        inputs = features[inside].double()
        shift = None if bias is None else bias.double()
        logits = F.linear(inputs, weight.double(), shift).detach().requires_grad_()
        losses = loss(logits, labels[inside])
        (residuals,) = torch.autograd.grad(losses.sum(), logits)
        gram = inputs @ inputs.T + (bias is not None)
        means[label] = losses.detach().mean()
        norms[label] = ((residuals @ residuals.T) * gram).sum().clamp(min=0).sqrt() / len(inputs)
    return means, norms


def few_over_many(values: Tensor, masks: dict[str, Tensor]) -> float | None:
    """Median over few-shot classes divided by the median over many-shot ones; None without either or at 0."""
    groups = [values[masks[name] & values.isfinite()] for name in ("few", "many")]
    if not all(len(group) for group in groups) or not groups[1].median() > 0:
        return None
    return float(groups[0].median() / groups[1].median())
