"""Adversarial features of stage 2 and their progressive weight, as the paper has them and as its release does."""

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


def class_adversarial_features(features: Tensor, gradient: Tensor, labels: Tensor, lengths: Tensor) -> Tensor:
    """z_i + λ_c ∇_{z_i} l_i / (Σ_{j∈I_c} ‖∇_{z_j} l_j‖²)^½ for the samples I_c of class c in the batch.

    The features of a class share one gradient of length 1, so that one sample moves by λ_c and n similar ones by about
    λ_c/√n each. ``features`` and ``gradient`` are [B, D], ``labels`` [B], ``lengths`` λ_c [C]. A class without a
    gradient keeps its features. The result is a constant for the backward pass.
    """
    features, gradient = features.detach(), gradient.detach()
    zeros = torch.zeros(len(lengths), dtype=gradient.dtype, device=gradient.device)
    largest = zeros.scatter_reduce(0, labels, gradient.abs().amax(1), "amax")[labels, None]
    unit = gradient / torch.where(largest > 0, largest, 1)
    norm = zeros.scatter_add(0, labels, unit.square().sum(1)).sqrt()[labels, None]
    return features + lengths[labels, None] * unit / torch.where(norm > 0, norm, 1)


def rarity_weights(class_counts: Tensor) -> Tensor:
    """w_c = ½ log(n_max/n_c + 0.01), float64 [C]: nearly 0 for the most frequent class, largest for the rarest.

    The class weights of CC-SAM's release; ½ and 0.01 are its constants.
    """
    counts = class_counts.double()
    return (counts.max() / counts + 0.01).log() / 2


def relative_scale(features: Tensor, share: float) -> Tensor:
    """λ = share · mean_i ‖z_i‖ over the batch, a scalar."""
    return share * torch.linalg.vector_norm(features.detach(), dim=1).mean()


def progressive_weight(epoch: int, num_epochs: int, from_one: bool = False) -> float:
    """t/T of Eq. 14, the weight of the adversarial loss: t = 0..T−1, or 1..T with ``from_one``.

    ``epoch`` counts from 0. With t = epoch the last epoch has (T − 1)/T; with t = epoch + 1 it has 1 and trains on
    adversarial features alone.
    """
    return (epoch + from_one) / num_epochs
