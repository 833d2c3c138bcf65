"""Norms of class gradients freed of the noise of small batches."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .closed_form import full_precision
from .partition import Groups


def linear_sample_squares(features: Tensor, logit_gradient: Tensor, groups: Groups, has_bias: bool) -> Tensor:
    """Σ_{i∈I_c} ‖g_i‖² [G] of a linear classifier, ‖g_i‖² = ‖δ_i‖² (‖z_i‖² + [bias]); z is [B, D], δ [B, C]."""
    features, delta = full_precision(features.detach(), logit_gradient.detach())
    squares = delta.square().sum(1) * (features.square().sum(1) + int(has_bias))
    return squares.new_zeros(groups.number).index_add(0, groups.index, squares)


def off_diagonal_square(grad_norm: Tensor, sample_squares: Tensor, sizes: Tensor) -> Tensor:
    """An unbiased estimate of ‖E g‖² for each group: the mean of ⟨g_i, g_j⟩ over the pairs i ≠ j, [G].

    (n² ‖ḡ‖² − Σ ‖g_i‖²) / (n (n − 1)) from the batch's norm ‖ḡ‖, Σ ‖g_i‖² and n, [G] each. ‖ḡ‖² itself is too large
    by the variance over n, which for one or two samples is most of it. May be negative; NaN where n < 2.
    """
    pairs = (sizes * (sizes - 1)).to(grad_norm.dtype)
    total = sizes.to(grad_norm.dtype).square() * grad_norm.square() - sample_squares
    return torch.where(pairs > 0, total / pairs.clamp(min=1), torch.nan)


@dataclass(frozen=True)
class NormState:
    """Running means of ‖E g_c‖² per group [G] with the weight they carry, and of the pooled signal and power."""

    square: Tensor
    weight: Tensor
    signal: Tensor
    power: Tensor

    @classmethod
    def empty(cls, groups: int, device: torch.device | None = None) -> NormState:
        zeros = torch.zeros(groups, dtype=torch.float64, device=device)
        zero = torch.zeros((), dtype=torch.float64, device=device)
        return cls(zeros, zeros.clone(), zero, zero.clone())


def unbiased_norms(
    state: NormState,
    grad_norm: Tensor,
    sample_squares: Tensor,
    sizes: Tensor,
    momentum: float = 0.9,
    floor: float = 0.1,
) -> tuple[NormState, Tensor]:
    """The next state, and ‖g_c‖ [G] for the radius rule: off-diagonal estimates smoothed over a class's batches.

    A class with two samples or more contributes its off-diagonal mean, one with a single sample ‖g_i‖² times the
    share of signal in the power of all classes, Σ_c offdiagonal_c / Σ_c mean ‖g_i‖² over classes with n ≥ 2, kept
    as running sums (1 before there is any). Each class's square is a running mean over the batches that contain it,
    with momentum β and the usual correction for the first ones. The norm is at least ``floor`` times the batch's,
    because estimates of a small square may be negative. A class without a gradient has norm 0. A class whose gradient
    is not finite (an overflow in half precision) counts as absent: what is remembered must outlive such a batch.
    """
    norm, squares = grad_norm.double(), sample_squares.double()
    finite = norm.isfinite() & squares.isfinite()
    norm, squares, sizes = (torch.where(finite, values, 0) for values in (norm, squares, sizes))
    present, pairs = sizes > 0, sizes > 1
    each = squares / sizes.clamp(min=1)
    estimate = torch.where(pairs, off_diagonal_square(norm, squares, sizes), 0)
    kept = torch.where(pairs.any(), momentum, 1.0)
    signal = kept * state.signal + (1 - kept) * estimate.sum()
    power = kept * state.power + (1 - kept) * torch.where(pairs, each, 0).sum()
    share = torch.where(power > 0, signal / torch.where(power > 0, power, 1), 1.0).clamp(0, 1)
    estimate = torch.where(pairs, estimate, share * each)
    square = torch.where(present, momentum * state.square + (1 - momentum) * estimate, state.square)
    weight = torch.where(present, momentum * state.weight + (1 - momentum), state.weight)
    mean = square / torch.where(weight > 0, weight, 1)
    smooth = mean.clamp(min=0).sqrt().maximum(floor * norm)
    result = torch.where(present & (norm > 0), smooth, 0).to(grad_norm.dtype)
    return NormState(square, weight, signal, power), result
