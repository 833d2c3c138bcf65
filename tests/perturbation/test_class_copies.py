import copy

import pytest
import timm
import torch
from toy_nets import (
    Oddities,
    ResNet,
    batch,
    clean_statistics,
    group_losses_at,
    randomised,
    with_fixed_statistics,
)
from torch import Tensor, nn
from torch.nn import functional as F

from ccsam_hf.perturbation.class_copies import ClassCopies
from ccsam_hf.perturbation.directions import gradient_step
from ccsam_hf.perturbation.layout import GroupLayout
from ccsam_hf.perturbation.partition import Groups, class_groups

CLASSES = 5


def vit() -> nn.Module:
    return timm.create_model(
        "vit_tiny_patch16_224", num_classes=CLASSES, img_size=8, patch_size=4, depth=2, embed_dim=12, num_heads=2,
        init_values=0.3,
    )  # fmt: skip


def resnet50_like() -> nn.Module:
    from timm.models.resnet import Bottleneck
    from timm.models.resnet import ResNet as TimmResNet

    return TimmResNet(Bottleneck, (1, 1, 1, 1), num_classes=CLASSES, channels=(4, 4, 8, 8), stem_width=4)


NETS = {"resnet": ResNet, "oddities": Oddities, "vit": vit, "timm resnet": resnet50_like}


def groups_of(y: Tensor, classes: int = CLASSES) -> Groups:
    return class_groups(y, torch.arange(classes) * 7 + 1)


def copies_step(model, parameters, x, y, groups, lengths, max_copies=None, flat_weight=1.0):
    """Losses in the batch's own order, ‖g_c‖ [G], and the gradients of all parameters."""
    layout = GroupLayout.of(groups, max_copies)
    sorted_batch = layout.sorted_batch({"x": x, "y": y})

    def losses() -> Tensor:
        return F.cross_entropy(model(sorted_batch["x"]), sorted_batch["y"], reduction="none")

    copies = ClassCopies(model, parameters, layout, max_copies)
    with copies.clean():
        clean = losses()
    gradients = copies.gradients(clean, retain_graph=flat_weight < 1)
    norms = gradients.total_norms()
    with copies.perturbed(gradient_step(gradients, lengths)):
        perturbed = losses()
    total = flat_weight * perturbed.mean()
    if flat_weight < 1:
        total = total + (1 - flat_weight) * clean.mean()
    grads = torch.autograd.grad(total, list(model.parameters()), allow_unused=True)
    unsorted = torch.empty_like(perturbed).index_copy(0, layout.order, perturbed)
    return unsorted, norms, grads


def reference_step(model, parameters, x, y, groups, lengths):
    """One group after the other through its own W + ε_c, with the clean pass's statistics."""
    twin = with_fixed_statistics(model, clean_statistics(model, x))
    losses = torch.zeros(len(y), dtype=x.dtype)
    norms = torch.zeros(groups.number, dtype=x.dtype)
    for g in range(groups.number):
        mine = groups.index == g
        if not mine.any():
            continue
        clean = group_losses_at(twin, x, y, groups.index, g, {}).mean()
        grads = torch.autograd.grad(clean, list(parameters.values()))
        norms[g] = torch.cat([v.flatten() for v in grads]).norm()
        moved = {n: p + lengths[g] * v / norms[g] for (n, p), v in zip(parameters.items(), grads, strict=True)}
        losses = losses.index_put((mine.nonzero().squeeze(1),), group_losses_at(twin, x, y, groups.index, g, moved))
    return losses, norms, torch.autograd.grad(losses.mean(), list(model.parameters()), allow_unused=True)


def assert_same(got, expected):
    for one, other in zip(got, expected, strict=True):
        if isinstance(other, Tensor):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-9)
        elif isinstance(other, tuple):
            for a, b in zip(one, other, strict=True):
                torch.testing.assert_close(a, b, rtol=0, atol=1e-9)


@pytest.mark.parametrize("max_copies", [None, 2])
@pytest.mark.parametrize("net", NETS)
def test_equals_loop_over_groups(net: str, max_copies: int | None) -> None:
    side = 32 if net == "timm resnet" else 8
    x, y = batch(side=side)
    model = randomised(NETS[net]())
    parameters = dict(model.named_parameters())
    lengths = torch.tensor([0.3, 0.1, 0.0, 0.5, 0.2], dtype=torch.float64)
    expected = reference_step(model, parameters, x, y, groups_of(y), lengths)
    assert_same(copies_step(model, parameters, x, y, groups_of(y), lengths, max_copies), expected)
