"""Class weights and the epoch from which they count."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ccsam_hf.losses.checks import checked_number


def effective_number_weights(class_counts: Tensor, beta: float) -> Tensor:
    """Weights inversely proportional to the effective number of samples E_n = (1 - beta^n) / (1 - beta).

    w_c = (1 / E_{n_c}) * C / sum_k (1 / E_{n_k}), so that they sum to the number of classes. beta = 0 gives equal
    weights, beta -> 1 inverse frequencies. Cui et al., Class-Balanced Loss Based on Effective Number of Samples,
    CVPR 2019.

    Args:
        class_counts: [C], all at least 1.
        beta: in [0, 1); its limit 1 is `inverse_frequency_weights`.

    Returns:
        float64 [C].
    """
    checked_number("beta", beta, low=0, below=1)
    counts = class_counts.to(torch.float64)
    # 1 - beta^n loses all digits for beta close to 1 and small n; expm1 keeps them.
    effective = torch.ones_like(counts) if beta == 0 else -torch.expm1(counts * math.log(beta)) / (1 - beta)
    return _sum_to_classes(1 / effective)


def inverse_frequency_weights(class_counts: Tensor) -> Tensor:
    """w_c = (1 / n_c) * C / sum_k (1 / n_k); float64 [C]."""
    return _sum_to_classes(1 / class_counts.to(torch.float64))


def _sum_to_classes(weights: Tensor) -> Tensor:
    return weights * (len(weights) / weights.sum())


def deferred(epoch: float, start_epoch: int) -> bool:
    """Deferred re-weighting (DRW): whether class weights count in this (0-based, possibly fractional) epoch.

    Epochs 0 .. start_epoch - 1 train without weights, all later ones with them. Cao et al., NeurIPS 2019,
    Algorithm 1.
    """
    return epoch >= start_epoch


WEIGHTINGS = ("effective_number", "inverse_frequency")
DEFAULT_BETA = 0.9999


@dataclass(frozen=True, eq=False)
class ClassWeighting:
    """Which class weights, and from which epoch on.

    Attributes:
        rule: a name in `WEIGHTINGS`.
        class_counts: int64 [C], all at least 1.
        beta: of the effective number, by default 0.9999; refused for the other rule, where it would have no effect.
        start_epoch: 0 for weights throughout, otherwise deferred re-weighting.
    """

    rule: str
    class_counts: Tensor
    beta: float | None = None
    start_epoch: int = 0

    def __post_init__(self) -> None:
        if self.rule not in WEIGHTINGS:
            raise ValueError(f"unknown weighting {self.rule!r}; choose from {', '.join(WEIGHTINGS)}")
        if self.beta is not None and self.rule != "effective_number":
            raise ValueError(f"beta has no effect on weighting={self.rule!r}: drop it, or choose 'effective_number'")
        if isinstance(self.start_epoch, bool) or not isinstance(self.start_epoch, int) or self.start_epoch < 0:
            raise ValueError(f"drw_epoch must be a whole number of epochs, 0 or more, got {self.start_epoch!r}")

    def weights(self) -> Tensor:
        """float64 [C], summing to C."""
        if self.rule == "inverse_frequency":
            return inverse_frequency_weights(self.class_counts)
        return effective_number_weights(self.class_counts, DEFAULT_BETA if self.beta is None else self.beta)

    def active(self, epoch: float) -> bool:
        """Whether the weights count in this epoch."""
        return deferred(epoch, self.start_epoch)

    def check_epochs(self, num_epochs: float) -> None:
        """Refuse a start that lies beyond the run: it would silently train without weights."""
        if self.start_epoch >= num_epochs:
            raise ValueError(
                f"drw_epoch={self.start_epoch} lies beyond the run of {num_epochs:g} epochs, so that the class weights "
                f"would never count: choose a value below {num_epochs:g}, or drop the class weights"
            )
