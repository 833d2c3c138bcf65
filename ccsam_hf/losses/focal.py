"""The focal loss."""

from collections.abc import Sequence
from typing import ClassVar, Unpack

import torch
from torch import Tensor
from torch.nn import functional as F

from ccsam_hf.losses.base import CommonOptions, LongTailedLoss
from ccsam_hf.losses.checks import checked_number
from ccsam_hf.losses.reduce import MeanDivisor


def true_class_margin(logits: Tensor, labels: Tensor) -> Tensor:
    """logits_y - log sum_{j != y} exp(logits_j), the log-odds of the true class; [B]."""
    entry = labels[:, None]
    others = logits.scatter(1, entry, -torch.inf)
    return logits.gather(1, entry).squeeze(1) - others.logsumexp(1)


def focal_loss(logits: Tensor, labels: Tensor, gamma: float) -> Tensor:
    """-(1 - p_y)^gamma log p_y, from the log-odds m of the true class: p_y = sigmoid(m), 1 - p_y = sigmoid(-m).

    Computed from probabilities, 1 - p_y is 0 for a fitted sample, and its power has no gradient for gamma < 1. The
    log-odds keep both exact.
    """
    margin = true_class_margin(logits, labels)
    return -torch.exp(gamma * F.logsigmoid(-margin)) * F.logsigmoid(margin)


class Focal(LongTailedLoss):
    """l_i = -(1 - p_{y_i})^gamma log p_{y_i} with p the softmax; gamma = 0 is cross entropy.

    Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, Eq. 4, with the softmax's probability of the true
    class instead of a sigmoid's. With class weights the mean divides by the number of samples, as there.

    Args:
        gamma: at least 0; 2 in the paper.
    """

    needs_class_counts: ClassVar[bool] = False
    mean_divides_by: ClassVar[MeanDivisor] = "samples"

    def __init__(
        self,
        num_classes: int,
        class_counts: Tensor | Sequence[int] | None = None,
        *,
        gamma: float = 2.0,
        **common: Unpack[CommonOptions],
    ) -> None:
        super().__init__(num_classes, class_counts, **common)
        self.gamma = checked_number("gamma", gamma, low=0)

    def per_label(self, logits: Tensor, labels: Tensor, draw: Tensor | None = None) -> Tensor:
        return focal_loss(logits, labels, self.gamma)
