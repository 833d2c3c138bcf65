"""Perturbed logits of a cosine classifier without moving its weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .closed_form import FeatureGradient, full_precision
from .partition import Groups


@dataclass(frozen=True)
class CosineShift:
    """A cosine classifier's gradient per group, and its logits when every group moves along its own.

    ``grad_norm`` ‖g_c‖ is [G], 0 for groups that are absent or have no gradient. ``cosine_times_norm`` ⟨W_j, ẑ_i⟩
    [B, C] and ``weight_square`` ‖W_j‖² [C] are the classifier's own. The others, [B, C] each, belong to a
    perturbation of length 1: ``along_feature`` ⟨ε_cj, ẑ_i⟩, ``along_weight`` ⟨W_j, ε_cj⟩ (0 in value, since the
    gradient of a cosine is orthogonal to W_j, but with the gradient ε_cj to W) and ``square`` ‖ε_cj‖².
    """

    grad_norm: Tensor
    cosine_times_norm: Tensor
    weight_square: Tensor
    along_feature: Tensor
    along_weight: Tensor
    square: Tensor
    scale: float

    def logits(self, lengths: Tensor, groups: Groups) -> Tensor:
        """s ⟨W_j + ε_cj, ẑ_i⟩ / ‖W_j + ε_cj‖ with ‖ε_c‖ = ``lengths`` [G] for sample i in group c, [B, C]."""
        lengths = torch.where(groups.active, lengths, 0).detach().to(self.square.dtype)
        length = lengths[groups.index, None]
        norm = self.weight_square + 2 * length * self.along_weight + length.square() * self.square
        return self.scale * (self.cosine_times_norm + length * self.along_feature) * norm.rsqrt()


def unit_cosine_shift(
    features: Tensor,
    weight: Tensor,
    logit_gradient: Tensor,
    groups: Groups,
    scale: float,
    feature_gradient: FeatureGradient = "perturbed",
) -> CosineShift:
    """The gradients g_c of logits_ij = s ⟨W_j, z_i⟩ / (‖W_j‖ ‖z_i‖) per group, and what moving along them does.

    With ẑ = z/‖z‖, cos_ij = ⟨W_j/‖W_j‖, ẑ_i⟩, δ_ij = ∂l_i/∂logits_ij and means over the group's samples,
    u_cj = mean_i δ_ij ẑ_i and t_cj = mean_i δ_ij cos_ij:

        g_cj = (s/‖W_j‖) (u_cj − t_cj W_j/‖W_j‖),    ‖g_cj‖² = (s/‖W_j‖)² (‖u_cj‖² − t_cj²),
        ⟨g_cj, ẑ_i⟩ = (s/‖W_j‖) (⟨u_cj, ẑ_i⟩ − cos_ij t_cj),    ‖W_j + ε_cj‖² = ‖W_j‖² + ‖ε_cj‖²,

    so that B x B Gram matrices serve in the place of a copy of W for every group. ``features`` z is [B, D], ``weight``
    [C, D], ``logit_gradient`` δ [B, C]. ε_c is constant in the backward pass: W and z receive the gradients that the
    logits at W + ε_c send them; ``feature_gradient="clean"`` stops z_i where it meets ε_c.
    """
    features, weight, delta = full_precision(features, weight, logit_gradient.detach())
    with torch.autocast(features.device.type, enabled=False):
        unit = torch.nn.functional.normalize(features, dim=1)
        fixed, fixed_weight = unit.detach(), weight.detach()
        rows = unit if feature_gradient == "perturbed" else fixed
        same = (groups.index[:, None] == groups.index[None, :]).to(unit.dtype)
        mean = same / same.sum(1, keepdim=True)
        delta, largest = _relative(delta, groups)
        norm = fixed_weight.norm(dim=1)
        direction = fixed_weight / norm[:, None]
        product = mean @ (delta * (fixed @ direction.T))  # t_cj
        along_u = (rows @ fixed.T * mean) @ delta  # ⟨u_cj, ẑ_i⟩
        square = (mean @ (delta * along_u.detach()) - product.square()).clamp(min=0) * (scale / norm).square()
        along_feature = (along_u - (rows @ direction.T) * product) * (scale / norm)
        onto_weight = mean @ (delta * (fixed @ weight.T)) - product * (weight * direction).sum(1)
        total = square.sum(1).sqrt()
        inverse = torch.where(total > 0, 1 / torch.where(total > 0, total, 1), 0)[:, None]
        grad_norm = largest * torch.zeros_like(largest).index_copy(0, groups.index, total)
        return CosineShift(
            grad_norm,
            unit @ weight.T,
            weight.square().sum(1),
            along_feature * inverse,
            onto_weight * (scale / norm) * inverse,
            square * inverse.square(),
            scale,
        )


def _relative(delta: Tensor, groups: Groups) -> tuple[Tensor, Tensor]:
    """δ relative to the largest entry of its group, and those entries [G]: a fitted class's squares underflow."""
    largest = torch.zeros(groups.number, dtype=delta.dtype, device=delta.device)
    largest = largest.scatter_reduce(0, groups.index, delta.abs().amax(1), "amax")
    return delta / torch.where(largest > 0, largest, 1)[groups.index, None], largest
