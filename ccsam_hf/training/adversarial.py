"""Adversarial features of stage 2 and their progressive weight."""

from __future__ import annotations

import torch
from torch import Tensor


def adversarial_features(features: Tensor, gradient: Tensor, scale: Tensor | float) -> Tensor:
    """z_adv = z + λ ∇_z l / ‖∇_z l‖, each sample along its own gradient (Eq. 12 of Zhou et al., CVPR 2023).

    ``features`` z and ``gradient`` ∇_z l_i are [B, D], ``scale`` λ is in units of the features. A sample without a
    gradient keeps its features. The result is a constant for the backward pass.
    """
    features, gradient = features.detach(), gradient.detach()
    # Divided by its largest entry first, the gradient of a fitted sample has a norm that does not underflow.
    largest = gradient.abs().amax(1, keepdim=True)
    unit = gradient / torch.where(largest > 0, largest, 1)
    norm = torch.linalg.vector_norm(unit, dim=1, keepdim=True)
    return features + scale * unit / torch.where(norm > 0, norm, 1)


def relative_scale(features: Tensor, share: float) -> Tensor:
    """λ = share · mean_i ‖z_i‖ over the batch, a scalar."""
    return share * torch.linalg.vector_norm(features.detach(), dim=1).mean()


def progressive_weight(epoch: int, num_epochs: int, from_one: bool = False) -> float:
    """t/T of Eq. 14, the weight of the adversarial loss: t = 0..T−1, or 1..T with ``from_one``.

    ``epoch`` counts from 0. With t = epoch the last epoch has (T − 1)/T; with t = epoch + 1 it has 1 and trains on
    adversarial features alone.
    """
    return (epoch + from_one) / num_epochs
