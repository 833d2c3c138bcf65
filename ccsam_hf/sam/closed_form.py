"""Perturbed logits of a linear classifier without moving its weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .partition import Groups

FeatureGradient = Literal["perturbed", "clean"]


def full_precision(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in float32, or in float64 where they have it; half precision rounds small perturbations away."""
    return tuple(t if t.dtype == torch.float64 else t.float() for t in tensors)


def linear_weight_norm(weight: Tensor, bias: Tensor | None) -> tuple[Tensor, int]:
    """‖w‖ over weight [C, D] and bias [C] together, detached and in full precision, and the number k of them."""
    parts = [t.detach() for t in (weight, bias) if t is not None]
    norms = torch.stack([torch.linalg.vector_norm(t) for t in full_precision(*parts)])
    return torch.linalg.vector_norm(norms), sum(t.numel() for t in parts)


@dataclass(frozen=True)
class JoinedBatch:
    """The batch that several processes form together: z [N, D], δ [N, C], its groups, and ``reduce``, which sums a
    tensor over the processes."""

    features: Tensor
    logit_gradient: Tensor
    groups: Groups
    reduce: Callable[[Tensor], Tensor]


def unit_logit_shift(
    features: Tensor,
    logit_gradient: Tensor,
    groups: Groups,
    has_bias: bool,
    feature_gradient: FeatureGradient = "perturbed",
    joined: JoinedBatch | None = None,
) -> tuple[Tensor, Tensor]:
    """What a perturbation of length 1 along each group's gradient adds to the logits, and the gradients' norms.

    For the classifier logits = W z + b and the group loss L_c = mean of l_i over I_c, the gradient of (W, b) is
    g_c = |I_c|^-1 Σ_{j∈I_c} δ_j (z_j, 1)ᵀ with δ_j = ∂l_j/∂logits_j. Moving (W, b) by ε_c = ‖ε_c‖ g_c/‖g_c‖
    (Eq. 9) therefore changes the logits of a sample i of the group by ‖ε_c‖ times

        Σ_{j∈I_c} (⟨z_i, z_j⟩ + [bias]) δ_j / (|I_c| ‖g_c‖),
        ‖g_c‖² = |I_c|^-2 Σ_{i,j∈I_c} ⟨δ_i, δ_j⟩ (⟨z_i, z_j⟩ + [bias]),

    an identity, not an approximation, at the cost of a B x B Gram matrix instead of a copy of W for every class.

    ``features`` z is [B, D], ``logit_gradient`` δ [B, C]. Returns the shift [B, C] and ‖g_c‖ [G] (0 for groups
    that are absent or have no gradient; their shift is 0). ε_c counts as a constant in the backward pass: δ, z_j
    and ‖g_c‖ are detached, z_i is not, so that the features receive (W + ε_c)ᵀ times the loss's gradient as in
    Eq. 11; ``feature_gradient="clean"`` detaches z_i as well, and the features see W while the classifier is
    trained at W + ε_c. With ``joined`` the sums over j and ‖g_c‖ are those of the batch of all processes.
    """
    if joined is None:
        joined = JoinedBatch(features, logit_gradient, groups, lambda total: total)
    features, own_delta = full_precision(features, logit_gradient.detach())
    others, delta = full_precision(joined.features.detach(), joined.logit_gradient.detach())
    rows = features if feature_gradient == "perturbed" else features.detach()
    index = joined.groups.index
    with torch.autocast(features.device.type, enabled=False):
        gram = rows @ others.T
        if has_bias:
            gram = gram + 1
        gram = gram * (groups.index[:, None] == index[None, :])
        # A fitted class has residuals whose squares underflow: take the norm of the residuals relative to the largest.
        largest = torch.zeros(groups.number, dtype=delta.dtype, device=delta.device)
        largest = largest.scatter_reduce(0, index, delta.abs().amax(1), "amax")
        divisor = torch.where(largest > 0, largest, 1)
        total = gram @ (delta / divisor[index, None])
        squares = (own_delta / divisor[groups.index, None] * total.detach()).sum(1)
        square = joined.reduce(torch.zeros_like(largest).index_add(0, groups.index, squares))
        norm = square.clamp(min=0).sqrt()
        scale = torch.where(norm > 0, 1 / torch.where(norm > 0, norm, 1), 0)
        grad_norm = largest * norm / joined.groups.sizes().clamp(min=1)
    return total * scale[groups.index, None], grad_norm


def shifted_logits(logits: Tensor, shift: Tensor, lengths: Tensor, groups: Groups) -> Tensor:
    """logits_i + ‖ε_c‖ · shift_i for i in group c: the logits [B, C] under the groups' perturbed classifiers."""
    (logits,) = full_precision(logits)
    lengths = torch.where(groups.active, lengths, 0).detach()
    return logits + lengths[groups.index, None] * shift
