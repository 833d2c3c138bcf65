"""From additive per-class totals to the closed-set figures."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from ccsam_hf.metrics.accuracy import accuracy_from_counts, class_accuracies, mean_over
from ccsam_hf.metrics.calibration import (
    ConfidenceBins,
    classwise_calibration_error,
    expected_calibration_error,
    from_fixed,
)
from ccsam_hf.metrics.inputs import IntArray
from ccsam_hf.metrics.summary import accuracy_summary, f1_scores
from ccsam_hf.shots import ShotThresholds

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
