"""Cross entropy, plain and on adjusted logits."""

from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from ccsam_hf.losses.base import LongTailedLoss


class CrossEntropy(LongTailedLoss):
    """l_i = -log softmax(logits_i)[y_i].

    For an unmixed target bitwise `F.cross_entropy(logits, labels, reduction="none")`, in the logits' own precision.
    With class weights the mean divides by the sum of the weights, as `F.cross_entropy(weight=...)` does.
    """

    needs_class_counts: ClassVar[bool] = False
    keeps_precision: ClassVar[bool] = True

    def per_label(self, logits: Tensor, labels: Tensor, draw: Tensor | None = None) -> Tensor:
        return F.cross_entropy(logits, labels, reduction="none")


class AdjustedCrossEntropy(LongTailedLoss):
    """Cross entropy after a map of the logits, which may know the label: l_i = -log softmax(map(logits_i, y_i))[y_i].

    A subclass writes `adjust`. A map that multiplies classes by different factors a_c says so in `slopes`, since the
    gradient then obeys sum_c g_c / a_c = 0 instead of sum_c g_c = 0.
    """

    def adjust(self, logits: Tensor, labels: Tensor, draw: Tensor | None) -> Tensor:
        """The logits [B, C] that the softmax sees."""
        raise NotImplementedError

    def per_label(self, logits: Tensor, labels: Tensor, draw: Tensor | None = None) -> Tensor:
        return F.cross_entropy(self.adjust(logits, labels, draw), labels, reduction="none")
