"""All closed-set figures from batches of logits, with memory for classes but not for images."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ccsam_hf.metrics.calibration import DEFAULT_BINS, bin_confidences, bin_probabilities, to_fixed
from ccsam_hf.metrics.figures import ClassTotals, closed_set_figures
from ccsam_hf.metrics.inputs import EMPTY_SPLIT, ArrayLike, counts_array
from ccsam_hf.metrics.samples import SampleStatistics, sample_statistics
from ccsam_hf.shots import ShotThresholds

TOP = 5


@dataclass
class StreamingMetrics:
    """Accumulator: `update` with each batch, `merge` with other processes, `compute` once.

    The state is int64 of size classes x bins and exactly additive, so the figures do not depend on batch size, order
    or number of processes.
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
