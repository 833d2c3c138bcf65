"""All closed-set figures from batches of logits, with memory for classes but not for images."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from ..shots import ShotThresholds
from .accuracy import accuracy_from_counts, accuracy_summary, class_accuracies, f1_scores, mean_over
from .calibration import (
    DEFAULT_BINS,
    ConfidenceBins,
    bin_confidences,
    bin_probabilities,
    classwise_calibration_error,
    expected_calibration_error,
    from_fixed,
    to_fixed,
)
from .inputs import EMPTY_SPLIT, ArrayLike, IntArray, checked_logits, counts_array


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


SMALLEST_TOP5 = 6  # with five classes or fewer, top-5 accuracy is 1 by construction
COUNTERS = ("images", "correct", "in_top", "predicted", "nll", "brier")
HISTOGRAMS = ("by_label", "by_class")
PARTS = tuple(part.name for part in fields(ConfidenceBins))


@dataclass(frozen=True)
class ClassTotals:
    """Sums over images by class, int64, exactly additive.

    images, correct, in_top, nll, brier: by true class, [C]; nll and brier in units of 2^-32. predicted: number of
    images given to the class, [C]. by_label: top-1 confidences by true class. by_class: all probabilities by class.
    """

    images: Tensor
    correct: Tensor
    in_top: Tensor
    predicted: Tensor
    nll: Tensor
    brier: Tensor
    by_label: ConfidenceBins
    by_class: ConfidenceBins

    @staticmethod
    def from_tensors(state: Mapping[str, Tensor]) -> "ClassTotals":
        def histogram(name: str) -> ConfidenceBins:
            return ConfidenceBins(*(state[f"{name}.{part}"] for part in PARTS))

        return ClassTotals(
            images=state["images"],
            correct=state["correct"],
            in_top=state["in_top"],
            predicted=state["predicted"],
            nll=state["nll"],
            brier=state["brier"],
            by_label=histogram("by_label"),
            by_class=histogram("by_class"),
        )

    @staticmethod
    def zeros(classes: int, bins: int) -> "ClassTotals":
        state = {name: torch.zeros(classes, dtype=torch.long) for name in COUNTERS}
        cells = [f"{name}.{part}" for name in HISTOGRAMS for part in PARTS]
        return ClassTotals.from_tensors(state | {name: torch.zeros(classes, bins, dtype=torch.long) for name in cells})

    def tensors(self) -> dict[str, Tensor]:
        """The sums by name, for reduction over processes."""
        state = {name: getattr(self, name) for name in COUNTERS}
        return state | {f"{h}.{part}": getattr(getattr(self, h), part) for h in HISTOGRAMS for part in PARTS}

    def __add__(self, other: "ClassTotals") -> "ClassTotals":
        theirs = other.tensors()
        return ClassTotals.from_tensors({n: value + theirs[n].to(value.device) for n, value in self.tensors().items()})


def closed_set_figures(totals: ClassTotals, class_counts: IntArray, thresholds: ShotThresholds) -> dict[str, Any]:
    """Accuracies, their summaries, top-5, macro F1 and calibration, overall and for each shot group.

    Accuracies of groups are means over classes (see `long_tail_accuracy`); top5 likewise, beside its mean over images
    under "overall". macro_f1 is the mean F1 of the classes with test images. Calibration of a group is that of its
    classes' images, but classwise_ece, which is the mean over its classes with all images. None where undefined.
    """
    images, correct = totals.images.cpu().numpy(), totals.correct.cpu().numpy()
    accuracies = class_accuracies(correct, images)
    masks = thresholds.masks(class_counts.tolist())
    everyone = torch.ones(len(class_counts), dtype=torch.bool)
    in_top = totals.in_top.cpu().numpy()
    top5 = accuracy_from_counts(in_top, images, class_counts, thresholds)
    return {
        "images": int(images.sum()),
        "classes": len(images),
        "classes_with_test_images": int((images > 0).sum()),
        "group_sizes": {name: int(mask.sum()) for name, mask in masks.items()},
        **accuracy_from_counts(correct, images, class_counts, thresholds),
        **accuracy_summary(accuracies),
        "macro_f1": mean_over(f1_scores(correct, images, totals.predicted.cpu().numpy())),
        "top5": top5 if len(images) >= SMALLEST_TOP5 else None,
        "calibration": {
            name: calibration_figures(totals, mask) for name, mask in {"overall": everyone, **masks}.items()
        },
    }


def calibration_figures(totals: ClassTotals, classes: Tensor) -> dict[str, float | None]:
    """ECE, classwise ECE, and mean NLL and Brier score of the images whose class is in the mask [C]."""
    mask = classes.to(totals.images.device)
    images = int(totals.images[mask].sum())

    def per_image(sums: Tensor) -> float | None:
        return float(from_fixed(sums[mask].sum())) / images if images else None

    return {
        "ece": expected_calibration_error(totals.by_label, mask),
        "classwise_ece": classwise_calibration_error(totals.by_class, mask),
        "nll": per_image(totals.nll),
        "brier": per_image(totals.brier),
    }


TOP = 5


@dataclass
class StreamingMetrics:
    """Accumulator: `update` with each batch, `merge` with other processes, `compute` once.

    The state is int64 of size classes x bins and exactly additive, so the figures do not depend on batch size, order
    or number of processes.

    Example:
        >>> metrics = StreamingMetrics([500, 5], ShotThresholds())
        >>> metrics.update(torch.tensor([[2.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 1]))
        >>> figures = metrics.compute()
        >>> figures["accuracy"], figures["many"], figures["few"]
        (0.5, 1.0, 0.0)
    """

    class_counts: ArrayLike
    thresholds: ShotThresholds
    bins: int = DEFAULT_BINS

    def __post_init__(self) -> None:
        self._train_counts = counts_array(self.class_counts)
        self._totals: ClassTotals | None = None

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Count logits [B, C] of images with labels [B].

        Raises:
            ValueError: C is not the number of class counts, logits are not finite, or a label lies outside 0..C-1.
        """
        if logits.shape[1:] != (len(self._train_counts),):
            raise ValueError(
                f"Logits of shape {list(logits.shape)} for {len(self._train_counts)} class_counts; "
                "pass the counts of the data set the model was trained on, in label order."
            )
        self.add(sample_statistics(logits, labels))

    def add(self, batch: SampleStatistics) -> None:
        """Count a batch whose statistics are known already."""
        counted = count_batch(batch, self.bins)
        self._totals = counted if self._totals is None else self._totals + counted

    def merge(self, other: "StreamingMetrics") -> None:
        """Add what another accumulator has counted."""
        if other._totals is not None:
            self._totals = other._totals if self._totals is None else self._totals + other._totals

    def state(self, device: torch.device | str = "cpu") -> dict[str, Tensor]:
        """What is to be summed over processes, as int64 tensors; zeros when nothing was counted."""
        classes = len(self._train_counts)
        totals = self._totals or ClassTotals.zeros(classes, self.bins)
        return {name: value.to(device) for name, value in totals.tensors().items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Replace the state, for instance by the sum over all processes."""
        self._totals = ClassTotals.from_tensors(state)

    @property
    def totals(self) -> ClassTotals:
        """The sums by class; refuses when nothing was counted."""
        if self._totals is None or not int(self._totals.images.sum()):
            raise ValueError(EMPTY_SPLIT)
        return self._totals

    def reliability(self) -> dict[str, dict[str, list[float | int | None]]]:
        """The reliability diagram of all images and of each shot group's, see `ConfidenceBins.curve`."""
        histogram = self.totals.by_label
        masks = self.thresholds.masks(self._train_counts.tolist())
        groups = {name: histogram.pooled(mask).curve() for name, mask in masks.items()}
        return {"overall": histogram.curve(), **groups}

    def compute(self) -> dict[str, Any]:
        """The figures of `closed_set_figures`, with thresholds and binning beside them.

        Raises:
            ValueError: nothing was counted.
        """
        figures = closed_set_figures(self.totals, self._train_counts, self.thresholds)
        binning = {"bins": self.bins, "binning": "equal width, closed on the right"}
        return {**figures, "thresholds": self.thresholds.describe(), "calibration_binning": binning}


def count_batch(batch: SampleStatistics, bins: int = DEFAULT_BINS) -> ClassTotals:
    """The additive totals of one batch."""
    classes = batch.probabilities.shape[1]
    right = (batch.prediction == batch.label).long()

    def per_class(index: Tensor, amounts: Tensor) -> Tensor:
        return torch.zeros(classes, dtype=torch.long, device=index.device).index_add_(0, index, amounts)

    return ClassTotals(
        images=per_class(batch.label, torch.ones_like(right)),
        correct=per_class(batch.label, right),
        in_top=per_class(batch.label, (batch.rank < TOP).long()),
        predicted=per_class(batch.prediction, torch.ones_like(right)),
        nll=per_class(batch.label, to_fixed(batch.nll)),
        brier=per_class(batch.label, to_fixed(batch.brier)),
        by_label=bin_confidences(batch.confidence, right, batch.label, classes, bins),
        by_class=bin_probabilities(batch.probabilities, batch.label, bins),
    )
