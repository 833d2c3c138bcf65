"""The gradient of every sample's loss with respect to its own logits, kept exact where float32 rounds it away."""

import torch
from torch import Tensor

from ccsam_hf.losses.base import LongTailedLoss, full_precision
from ccsam_hf.losses.target import Target

SMALLEST_RESIDUAL = 1e-30


def logit_gradient(loss: LongTailedLoss, logits: Tensor, target: Target, draw: Tensor | None = None) -> Tensor:
    """delta_i = d l_i / d logits_i for the unreduced, unweighted loss; detached, autocast off.

    All losses here see the logits through a softmax, so that sum_c delta_ic / a_c = 0 with the slopes a_c of their
    logits map (1 for all but VS). The entry of the dominant class is recomputed from that: p_y - 1 is 0 in float32
    once the margin exceeds about 17, though the others still add up to a gradient. Magnitudes below 1e-30 become 0,
    because products with subnormal numbers run many times slower on a CPU.

    Args:
        loss: any loss of this package.
        logits: [B, C], in any floating dtype.
        target: B targets, mixed or not.
        draw: [B, C], the same noise that the loss itself was given.

    Returns:
        [B, C], float64 for float64 logits, otherwise float32.
    """
    with torch.autocast(logits.device.type, enabled=False), torch.enable_grad():
        leaf = full_precision(logits.detach()).requires_grad_(True)
        (gradient,) = torch.autograd.grad(loss(leaf, target, draw).sum(), leaf)
    return balanced_residual(gradient, target.dominant, loss.slopes)


def balanced_residual(gradient: Tensor, dominant: Tensor, slopes: Tensor | None = None) -> Tensor:
    """The gradient with its dominant entry set to minus the (slope-weighted) sum of the other entries.

    Args:
        gradient: [B, C].
        dominant: int64 [B].
        slopes: [C], positive; None for all ones.

    Returns:
        [B, C], with magnitudes below 1e-30 flushed to zero.
    """
    entry = dominant[:, None]
    others = _flush(gradient.scatter(1, entry, 0.0))
    true = -others.sum(1) if slopes is None else -(others / slopes).sum(1) * slopes[dominant]
    return _flush(others.scatter(1, entry, true[:, None]))


def _flush(values: Tensor) -> Tensor:
    return values.masked_fill(values.abs() < SMALLEST_RESIDUAL, 0.0)
