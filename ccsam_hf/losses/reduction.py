"""From per-sample losses to one number: class weights, the epoch from which they count, and the three reductions."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .target import Target, checked_number

MeanDivisor = Literal["weights", "samples"]


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


def batch_class_counts(dominant: Tensor, num_classes: int) -> Tensor:
    """m_c: int64 [C], how many samples of the batch belong to each class. Adds up over processes and micro-batches."""
    zeros = torch.zeros(num_classes, dtype=torch.int64, device=dominant.device)
    return zeros.scatter_add_(0, dominant, torch.ones_like(dominant))


def presence_probability(class_counts: Tensor, batch_size: Tensor | int) -> Tensor:
    """1 - (1 - pi_c)^B with pi_c = n_c / N: how likely a class is in a batch of B samples drawn with replacement.

    An epoch without replacement makes it slightly larger (hypergeometric); the two agree for B much below N.
    """
    return -torch.expm1(batch_size * torch.log1p(-class_counts / class_counts.sum()))


def _over_samples(m: Tensor, w: Tensor, n: Tensor | None, divide_by: MeanDivisor) -> Tensor:
    return w / ((m * w).sum() if divide_by == "weights" else m.sum())


def _over_classes(m: Tensor, w: Tensor, n: Tensor | None, divide_by: MeanDivisor) -> Tensor:
    present = (m > 0).to(w.dtype)
    return w / (m.clamp(min=1) * ((present * w).sum() if divide_by == "weights" else present.sum()))


def _over_classes_unbiased(m: Tensor, w: Tensor, n: Tensor | None, divide_by: MeanDivisor) -> Tensor:
    if n is None:
        raise ValueError("class_reduction='class_unbiased' needs the training set's class counts: pass class_counts=")
    trained = (n > 0).to(w.dtype)
    presence = presence_probability(n, m.sum()).masked_fill(n <= 0, 1.0)
    return w / (m.clamp(min=1) * presence * ((trained * w).sum() if divide_by == "weights" else trained.sum()))


REDUCTIONS: dict[str, Callable[[Tensor, Tensor, Tensor | None, MeanDivisor], Tensor]] = {
    "sample": _over_samples,
    "class": _over_classes,
    "class_unbiased": _over_classes_unbiased,
}


def class_coefficients(
    batch_counts: Tensor,
    reduction: str = "sample",
    *,
    class_weights: Tensor | None = None,
    divide_by: MeanDivisor = "weights",
    class_counts: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """k_c, so that the reduced loss is sum_i k_{y_i} l_i, with y_i the dominant class of sample i.

    With L_c the mean over the m_c samples of class c in the batch, w_c the class weights (1 where there are none):

    * "sample": sum_i w_{y_i} l_i / sum_i w_{y_i}, the mean over samples;
    * "class": sum_{c present} w_c L_c / sum_{c present} w_c, the mean over the classes present. Its expectation
      still favours frequent classes, which are present more often;
    * "class_unbiased": sum_{c present} w_c L_c / (1 - (1 - pi_c)^B) / sum_c w_c, the last sum over *all* classes with
      training samples. In batches of B samples drawn with replacement L_c is an unbiased estimate whenever c is
      present, so the expectation is exactly the class-balanced sum_c w_c L_c^population / sum_c w_c (1/C sum_c L_c
      without weights). The price is variance: the k of one batch do not add up to 1, and a rare class that does
      turn up counts about N / (n_c B) times as much as a class that is always there.

    With `divide_by="samples"` the three divisors are the number of samples, of classes present, of trained classes.

    `batch_counts` may be summed over processes or micro-batches beforehand; then sum_i k_{y_i} l_i is each part's
    share of the joint mean (times the number of processes under an averaging all-reduce).

    Args:
        batch_counts: m, integer [C].
        reduction: a name in `REDUCTIONS`.
        class_weights: w, [C].
        divide_by: what the loss divides by, its `mean_divides_by`.
        class_counts: n, the training set's [C]; only "class_unbiased" needs it.
        dtype: of the result.

    Returns:
        [C], meaningless for classes that are not in the batch.
    """
    if reduction not in REDUCTIONS:
        raise ValueError(f"unknown class_reduction {reduction!r}; choose from {', '.join(REDUCTIONS)}")
    m = batch_counts.to(dtype)
    w = torch.ones_like(m) if class_weights is None else class_weights.to(device=m.device, dtype=dtype)
    n = None if class_counts is None else class_counts.to(device=m.device, dtype=dtype)
    return REDUCTIONS[reduction](m, w, n, divide_by)


def reduce_losses(
    losses: Tensor,
    target: Target,
    reduction: str = "sample",
    *,
    num_classes: int,
    class_weights: Tensor | None = None,
    divide_by: MeanDivisor = "weights",
    class_counts: Tensor | None = None,
) -> Tensor:
    """One number from the losses [B] of one batch; see `class_coefficients` for the three reductions.

    Without class weights "sample" is bitwise `losses.mean()`.
    """
    assert len(losses) == len(target) > 0, (losses.shape, len(target))
    if reduction == "sample" and class_weights is None:
        return losses.mean()
    coefficients = class_coefficients(
        batch_class_counts(target.dominant, num_classes),
        reduction,
        class_weights=class_weights,
        divide_by=divide_by,
        class_counts=class_counts,
        dtype=losses.dtype,
    )
    return (coefficients[target.dominant] * losses).sum()
