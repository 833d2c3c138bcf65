"""Focal-SAM: one perturbation for the batch, sharpness weighted by class."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


def focal_class_weights(class_counts: Tensor, gamma: float) -> Tensor:
    """m_c = (1 − π_c)^γ with π_c = n_c / Σ n, [C] in double precision: near 1 for rare classes, less for frequent."""
    if gamma < 0:
        raise ValueError(f"Focal-SAM's gamma must be at least 0, got {gamma}.")
    share = class_counts.double() / class_counts.sum()
    return (1 - share) ** gamma


@dataclass(frozen=True)
class FocalWeights:
    """Weights [B] of the samples' losses in the three backward passes of Focal-SAM; each is summed, not averaged.

    With the focal loss L^γ = Σ_c m_c L^c, L^c the part of class c in the batch's mean loss L, and
    ε = ρ ∇L^γ(W)/‖∇L^γ(W)‖, the objective is L(W) + λ (L^γ(W + ε) − L^γ(W)). (Li et al., Focal-SAM, ICML 2025,
    arXiv 2505.01660.) ``direction`` makes L^γ, whose gradient gives ε; ``clean`` makes L − λ L^γ at W, and
    ``perturbed`` λ L^γ at W + ε. γ = 0 and λ = 1 is SAM.
    """

    direction: Tensor
    clean: Tensor
    perturbed: Tensor


def focal_weights(
    labels: Tensor, class_counts: Tensor, gamma: float, sharpness_weight: float, weights: Tensor | None = None
) -> FocalWeights:
    """The three weights for labels [B], training counts [C], γ and λ = ``sharpness_weight``.

    ``weights`` [B] are those of the samples in the objective's losses, 1/B by default; a class's weight in the
    objective does not turn the direction, as with every other perturbation.
    """
    if sharpness_weight < 0:
        raise ValueError(f"Focal-SAM's sharpness_weight must be at least 0, got {sharpness_weight}.")
    mean = 1 / len(labels)
    focal = focal_class_weights(class_counts, gamma)[labels]
    share = mean if weights is None else weights
    return FocalWeights(mean * focal, share * (1 - sharpness_weight * focal), share * sharpness_weight * focal)
