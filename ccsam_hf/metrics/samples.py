"""What is kept of each test image: a handful of numbers instead of its logits."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ccsam_hf.metrics.inputs import checked_logits


@dataclass(frozen=True)
class SampleStatistics:
    """Per-image figures, [B] each; `probabilities` [B, C] is for use within the batch and never stored.

    rank: number of classes before the true one when logits are sorted (ties: the lower index first), so rank 0 is right
    and rank < 5 is right within five. nll = -log p_y. brier = Σ_c (p_c - [c = y])², between 0 and 2.
    """

    label: Tensor
    prediction: Tensor
    confidence: Tensor
    rank: Tensor
    nll: Tensor
    brier: Tensor
    probabilities: Tensor


def sample_statistics(logits: Tensor, labels: Tensor) -> SampleStatistics:
    """Statistics of logits [B, C] against labels [B], in float64.

    Raises:
        ValueError: NaN or infinite logits, or a label outside 0..C-1.
    """
    scores, labels = checked_logits(logits, labels)
    log_probabilities = scores.log_softmax(dim=1)
    probabilities = log_probabilities.exp()
    own = labels[:, None]
    prediction = scores.argmax(dim=1)
    own_probability = probabilities.gather(1, own)[:, 0]
    return SampleStatistics(
        label=labels,
        prediction=prediction,
        confidence=probabilities.gather(1, prediction[:, None])[:, 0],
        rank=rank_of_label(scores, labels),
        nll=-log_probabilities.gather(1, own)[:, 0],
        brier=probabilities.square().sum(dim=1) - 2 * own_probability + 1,
        probabilities=probabilities,
    )


def rank_of_label(scores: Tensor, labels: Tensor) -> Tensor:
    """How many classes come before the true one, [B]; among equal scores the lower index comes first, as in argmax."""
    own = scores.gather(1, labels[:, None])
    index = torch.arange(scores.shape[1], device=labels.device)
    earlier_tie = (scores == own) & (index < labels[:, None])
    return ((scores > own) | earlier_tie).sum(dim=1)
