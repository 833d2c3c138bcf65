"""Accuracy over all images, over classes, and over many-, medium- and few-shot classes."""

import numpy as np

from ccsam_hf.metrics.inputs import ArrayLike, BoolArray, FloatArray, IntArray, counts_array, paired
from ccsam_hf.shots import Boundaries, ShotThresholds


def class_accuracies(correct: IntArray, total: IntArray) -> FloatArray:
    """Accuracy of each class, correct_c / total_c; NaN marks a class without test images (internal: see mean_over)."""
    return np.divide(correct, total, out=np.full(len(total), np.nan), where=total > 0)


def mean_over(per_class: FloatArray, mask: BoolArray | None = None) -> float | None:
    """Mean of the classes in `mask` that have a value; None when there is none."""
    chosen = per_class if mask is None else per_class[mask]
    chosen = chosen[~np.isnan(chosen)]
    return float(chosen.mean()) if chosen.size else None


def group_masks(class_counts: IntArray, thresholds: ShotThresholds) -> dict[str, BoolArray]:
    return {name: mask.numpy() for name, mask in thresholds.masks(class_counts.tolist()).items()}


def accuracy_from_counts(
    correct: IntArray, total: IntArray, class_counts: IntArray, thresholds: ShotThresholds
) -> dict[str, float | None]:
    """The five accuracies from additive per-class counts [C] of correct and of all test images."""
    accuracies = class_accuracies(correct, total)
    images = int(total.sum())
    groups = group_masks(class_counts, thresholds)
    return {
        "accuracy": float(correct.sum() / images) if images else None,
        "balanced_accuracy": mean_over(accuracies),
        **{name: mean_over(accuracies, mask) for name, mask in groups.items()},
    }


def long_tail_accuracy(
    predictions: ArrayLike,
    references: ArrayLike,
    class_counts: ArrayLike,
    many: int = 100,
    few: int = 20,
    boundaries: Boundaries = "strict",
) -> dict[str, float | None]:
    """Overall, balanced, many-, medium- and few-shot accuracy as fractions.

    "accuracy" is the mean over images. The others are means over *classes* of the class's own accuracy, so that a
    class counts once whatever its number of test images (OLTR, Liu et al. 2019); on a balanced test set both agree.
    A group without a class, or whose classes have no test image, is None, never NaN.

    Args:
        predictions: predicted class of each test image, [N].
        references: true class of each test image, [N].
        class_counts: number of *training* images of each class, [C].
        many, few, boundaries: see `ShotThresholds`; report them beside the figures.

    Raises:
        ValueError: lengths differ, the split is empty, or a class lies outside 0..C-1.
    """
    counts = counts_array(class_counts)
    thresholds = ShotThresholds(many, few, boundaries)
    predicted, labels = paired(predictions, references, len(counts))
    total = np.bincount(labels, minlength=len(counts))
    correct = np.bincount(labels[predicted == labels], minlength=len(counts))
    return accuracy_from_counts(correct, total, counts, thresholds)
