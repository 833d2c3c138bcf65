"""From per-sample losses to one number: over samples, over classes, or over classes without bias."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from ccsam_hf.losses.target import Target

MeanDivisor = Literal["weights", "samples"]


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
