"""Which way each group's weights are moved, given how far."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from .closed_form import full_precision
from .group_gradients import AlongGradient, Fixed, GroupGradients, joint_norm
from .layout import GroupLayout
from .partition import Groups


def inverse_or_zero(norm: Tensor) -> Tensor:
    """1 / norm, and 0 where the norm is 0: nothing is moved without a direction."""
    return torch.where(norm > 0, 1 / torch.where(norm > 0, norm, 1), 0)


def gradient_step(gradients: GroupGradients, lengths: Tensor) -> AlongGradient:
    """ε_c = ‖ε_c‖ g_c/‖g_c‖ (Eq. 9), the norm over all perturbed parameters; ``lengths`` ‖ε_c‖ is [G]."""
    norms = gradients.norms()
    scale = gradients.layout.of_present(lengths) * inverse_or_zero(joint_norm(norms))
    return AlongGradient(gradients, dict.fromkeys(norms, scale))


def layerwise_step(gradients: GroupGradients, rule: Callable[[str, Tensor], Tensor]) -> AlongGradient:
    """ε_c of each parameter tensor by itself: ‖ε_cp‖ g_cp/‖g_cp‖ with ‖ε_cp‖ = ``rule(name, ‖g_cp‖ [G])`` [G]."""
    layout = gradients.layout
    scales = {
        name: layout.of_present(rule(name, layout.spread(norm))) * inverse_or_zero(norm)
        for name, norm in gradients.norms().items()
    }
    return AlongGradient(gradients, scales)


def adaptive_metric(parameters: Mapping[str, Tensor], eta: float = 0.0) -> dict[str, Tensor]:
    """T = |w| + η for each parameter, the scaling of ASAM (Kwon et al., ICML 2021, without its filter-wise variant)."""
    return {name: p.detach().abs() + eta for name, p in parameters.items()}


def adaptive_norms(gradients: GroupGradients, metric: Mapping[str, Tensor]) -> Tensor:
    """‖T g_c‖ [G], what the radius rule of an adaptive step sees in the place of ‖g_c‖."""
    return gradients.layout.spread(joint_norm(gradients.norms(metric)))


def adaptive_step(gradients: GroupGradients, metric: Mapping[str, Tensor], radii: Tensor) -> AlongGradient:
    """ε_c = ρ_c T² g_c / ‖T g_c‖, the maximiser of ⟨g_c, ε⟩ under ‖T⁻¹ ε‖ ≤ ρ_c; ``radii`` ρ_c is [G]."""
    norms = gradients.norms(metric)
    scale = gradients.layout.of_present(radii) * inverse_or_zero(joint_norm(norms))
    squared = {name: t.square() for name, t in metric.items()}
    return AlongGradient(gradients, dict.fromkeys(norms, scale), squared)


def gaussian_step(
    layout: GroupLayout, parameters: Mapping[str, Tensor], lengths: Tensor, generator: torch.Generator | None = None
) -> Fixed:
    """ε_c = ‖ε_c‖ ξ_c/‖ξ_c‖ with ξ_c standard normal and independent of the gradient (the paper's ablation of the
    direction); ``lengths`` is [G]. A group's noise does not depend on the order of the groups in the batch."""
    order = layout.present.argsort()
    noise = {}
    for name, p in parameters.items():
        drawn = torch.randn(len(order), *p.shape, generator=generator, dtype=p.dtype, device=p.device)
        noise[name] = torch.empty_like(drawn).index_copy_(0, order, drawn)
    norm = joint_norm({name: torch.linalg.vector_norm(v.flatten(1), dim=1) for name, v in noise.items()})
    scale = layout.of_present(lengths).to(norm.dtype) / norm
    return Fixed(layout, {name: v * scale.view(-1, *[1] * (v.dim() - 1)) for name, v in noise.items()})


def unit_lengths(lengths: Tensor) -> Tensor:
    """Length 1 for every group that the rule moves at all: the ablation of the length."""
    return (lengths > 0).to(lengths.dtype)


def mean_lengths(lengths: Tensor, sizes: Tensor) -> Tensor:
    """The rule's mean length over the batch's samples for every group that it moves; ``sizes`` [G] counts them."""
    moved = (lengths > 0).to(lengths.dtype)
    weight = moved * sizes
    return moved * (lengths * weight).sum() * inverse_or_zero(weight.sum())


def gaussian_logit_shift(
    features: Tensor, num_classes: int, groups: Groups, has_bias: bool, generator: torch.Generator | None = None
) -> Tensor:
    """What Gaussian noise of length 1 on a linear classifier adds to the logits [B, C], one draw for each group.

    ⟨ξ_c, (z_i, 1)⟩ / ‖ξ_c‖ for sample i in group c, ξ_c standard normal of the classifier's shape; for
    ``shifted_logits`` in the place of ``unit_logit_shift``. One classifier is in memory at a time.
    """
    (features,) = full_precision(features)
    shift = features.new_zeros(len(features), num_classes)
    for group in groups.present().nonzero().squeeze(1):
        shape = (num_classes, features.shape[1] + int(has_bias))
        noise = torch.randn(shape, generator=generator, dtype=features.dtype, device=features.device)
        noise = noise / noise.norm()
        mine = (groups.index == group).nonzero().squeeze(1)
        moved = features[mine] @ noise[:, : features.shape[1]].T
        shift = shift.index_put((mine,), moved + noise[:, -1] if has_bias else moved)
    return shift
