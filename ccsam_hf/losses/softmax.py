"""The softmax family: cross entropy, plain and on adjusted logits; focal loss; label smoothing, overall or by class."""

import math
from collections.abc import Callable, Sequence
from typing import ClassVar, Unpack

import torch
from torch import Tensor
from torch.nn import functional as F

from .base import CommonOptions, LongTailedLoss
from .reduction import MeanDivisor
from .target import checked_choice, checked_number


class CrossEntropy(LongTailedLoss):
    """l_i = -log softmax(logits_i)[y_i].

    For an unmixed target bitwise `F.cross_entropy(logits, labels, reduction="none")`, in the logits' own precision.
    With class weights the mean divides by the sum of the weights, as `F.cross_entropy(weight=...)` does.
    """

    needs_class_counts: ClassVar[bool] = False
    keeps_precision: ClassVar[bool] = True
    gradient_sums_to_zero: ClassVar[bool] = True

    def per_label(self, logits: Tensor, labels: Tensor, draw: Tensor | None = None, **features: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, reduction="none")


class AdjustedCrossEntropy(LongTailedLoss):
    """Cross entropy after a map of the logits, which may know the label: l_i = -log softmax(map(logits_i, y_i))[y_i].

    A subclass writes `adjust`. A map that multiplies classes by different factors a_c says so in `slopes`, since the
    gradient then obeys sum_c g_c / a_c = 0 instead of sum_c g_c = 0.
    """

    gradient_sums_to_zero: ClassVar[bool] = True

    def adjust(self, logits: Tensor, labels: Tensor, draw: Tensor | None) -> Tensor:
        """The logits [B, C] that the softmax sees."""
        raise NotImplementedError

    def per_label(self, logits: Tensor, labels: Tensor, draw: Tensor | None = None, **features: Tensor) -> Tensor:
        return F.cross_entropy(self.adjust(logits, labels, draw), labels, reduction="none")


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
    gradient_sums_to_zero: ClassVar[bool] = True

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

    def per_label(self, logits: Tensor, labels: Tensor, draw: Tensor | None = None, **features: Tensor) -> Tensor:
        return focal_loss(logits, labels, self.gamma)


CONVENTIONS = ("others", "uniform")


def smoothed_cross_entropy(logits: Tensor, labels: Tensor, epsilon: Tensor | float, convention: str) -> Tensor:
    """-sum_c q_c log p_c with a target q that gives away the share epsilon of the label.

    "others": q_y = 1 - epsilon and epsilon / (K - 1) for each of the K - 1 other classes.
    "uniform": epsilon / K for every class, the true one included, so q_y = 1 - epsilon + epsilon / K; that is
    `F.cross_entropy(label_smoothing=epsilon)`.
    "others" with epsilon is "uniform" with epsilon K / (K - 1).

    Args:
        logits: [B, K].
        labels: int64 [B].
        epsilon: [B], or one for all.
        convention: a name in `CONVENTIONS`.
    """
    losses = -logits.log_softmax(1)
    true = losses.gather(1, labels[:, None]).squeeze(1)
    if convention == "uniform":
        return (1 - epsilon) * true + epsilon * losses.mean(1)
    others = losses.scatter(1, labels[:, None], 0.0).sum(1) / (logits.shape[1] - 1)
    return (1 - epsilon) * true + epsilon * others


class LabelSmoothing(LongTailedLoss):
    """Cross entropy with the same smoothing for every class.

    Args:
        epsilon: in [0, 1).
        convention: "uniform" (epsilon / K, as torch) or "others" (epsilon / (K - 1)).
    """

    needs_class_counts: ClassVar[bool] = False
    mean_divides_by: ClassVar[MeanDivisor] = "samples"
    gradient_sums_to_zero: ClassVar[bool] = True

    def __init__(
        self,
        num_classes: int,
        class_counts: Tensor | Sequence[int] | None = None,
        *,
        epsilon: float = 0.1,
        convention: str = "uniform",
        **common: Unpack[CommonOptions],
    ) -> None:
        super().__init__(num_classes, class_counts, **common)
        self.epsilon = checked_number("epsilon", epsilon, low=0, below=1)
        self.convention = checked_choice("convention", convention, CONVENTIONS)

    def per_label(self, logits: Tensor, labels: Tensor, draw: Tensor | None = None, **features: Tensor) -> Tensor:
        return smoothed_cross_entropy(logits, labels, self.epsilon, self.convention)


# Each maps the relative count r in [0, 1] and the exponent to the share of the way from the tail's to the head's
# smoothing.
SHAPES: dict[str, Callable[[Tensor, float], Tensor]] = {
    "concave": lambda r, power: torch.sin(r * math.pi / 2),
    "linear": lambda r, power: r,
    "convex": lambda r, power: 1 + torch.sin((3 + r) * math.pi / 2),
    "exponential": lambda r, power: r**power,
}


def smoothing_factors(
    class_counts: Tensor, epsilon_head: float, epsilon_tail: float, shape: str = "concave", power: float = 1.0
) -> Tensor:
    """epsilon_c = epsilon_tail + (epsilon_head - epsilon_tail) * shape(r_c), r_c = (n_c - n_min) / (n_max - n_min).

    With equal counts every class is a head class, r_c = 1.

    Returns:
        float64 [C].
    """
    counts = class_counts.to(torch.float64)
    spread = counts.max() - counts.min()
    r = (counts - counts.min()) / spread if float(spread) > 0 else torch.ones_like(counts)
    return epsilon_tail + (epsilon_head - epsilon_tail) * SHAPES[shape](r, power)


class LabelAwareSmoothing(LongTailedLoss):
    """Cross entropy with a smoothing that grows with the class count, against over-confidence on head classes.

    Zhong et al., Improving Calibration for Long-Tailed Recognition (MiSLAS), CVPR 2021. The paper's target is
    convention "others", epsilon_y / (K - 1); the authors' release computes "uniform", epsilon_y / K.

    Args:
        epsilon_head: of the most frequent class, in [0, 1).
        epsilon_tail: of the rarest class, at most epsilon_head.
        shape: a name in `SHAPES`.
        power: exponent of the shape "exponential", positive; refused for the others.
        convention: a name in `CONVENTIONS`.
    """

    mean_divides_by: ClassVar[MeanDivisor] = "samples"
    gradient_sums_to_zero: ClassVar[bool] = True
    allows_empty_classes: ClassVar[bool] = True
    epsilons: Tensor

    def __init__(
        self,
        num_classes: int,
        class_counts: Tensor | Sequence[int] | None = None,
        *,
        epsilon_head: float = 0.4,
        epsilon_tail: float = 0.1,
        shape: str = "concave",
        power: float | None = None,
        convention: str = "others",
        **common: Unpack[CommonOptions],
    ) -> None:
        super().__init__(num_classes, class_counts, **common)
        head = checked_number("epsilon_head", epsilon_head, low=0, below=1)
        tail = checked_number("epsilon_tail", epsilon_tail, low=0, below=1)
        if tail > head:
            raise ValueError(
                f"epsilon_tail={tail:g} must not exceed epsilon_head={head:g}: head classes are smoothed more"
            )
        checked_choice("shape", shape, tuple(SHAPES))
        if (power is None) == (shape == "exponential"):
            raise ValueError(
                f"power belongs to shape='exponential' and to it alone, got shape={shape!r}, power={power}"
            )
        exponent = 1.0 if power is None else checked_number("power", power, low=1e-6)
        self.convention = checked_choice("convention", convention, CONVENTIONS)
        self._keep("epsilons", smoothing_factors(self.checked_counts(), head, tail, shape, exponent))

    def per_label(self, logits: Tensor, labels: Tensor, draw: Tensor | None = None, **features: Tensor) -> Tensor:
        return smoothed_cross_entropy(logits, labels, self.epsilons[labels].to(logits.dtype), self.convention)
