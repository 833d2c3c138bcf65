"""Accuracy over images, classes and shot groups; its summaries, and the table of single classes behind them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..shots import SHOT_GROUPS, Boundaries, ShotThresholds
from .inputs import ArrayLike, BoolArray, FloatArray, IntArray, counts_array, paired

# The five accuracies by which a run is judged.
ACCURACIES = ("accuracy", "balanced_accuracy", *SHOT_GROUPS)


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
    """The `ACCURACIES` from additive per-class counts [C] of correct and of all test images."""
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

    Example:
        >>> long_tail_accuracy([0, 0, 0, 1], [0, 0, 0, 2], class_counts=[500, 60, 5])
        {'accuracy': 0.75, 'balanced_accuracy': 0.5, 'many': 1.0, 'medium': None, 'few': 0.0}
    """
    counts = counts_array(class_counts)
    thresholds = ShotThresholds(many, few, boundaries)
    predicted, labels = paired(predictions, references, len(counts))
    total = np.bincount(labels, minlength=len(counts))
    correct = np.bincount(labels[predicted == labels], minlength=len(counts))
    return accuracy_from_counts(correct, total, counts, thresholds)


def accuracy_summary(accuracies: FloatArray) -> dict[str, float | None]:
    """Means and worst cases of the class accuracies [C]; classes without test images (NaN) are left out.

    harmonic_mean = K / Σ_c 1/a_c and geometric_mean = (Π_c a_c)^(1/K) are 0 as soon as one class is never right (some
    authors put 1e-3 in its place). worst_decile is the mean of the ceil(K/10) worst classes.

    Example:
        >>> accuracy_summary(np.array([0.5, 1.0, np.nan]))["worst_class"]
        0.5
    """
    present = np.sort(accuracies[~np.isnan(accuracies)])
    names = ("harmonic_mean", "geometric_mean", "worst_class", "worst_decile")
    if present.size == 0:
        return dict.fromkeys(names)
    never_right = present[0] == 0
    harmonic = 0.0 if never_right else present.size / np.sum(1 / present)
    geometric = 0.0 if never_right else math.exp(np.mean(np.log(present)))
    worst_decile = present[: math.ceil(present.size / 10)].mean()
    return dict(zip(names, map(float, (harmonic, geometric, present[0], worst_decile)), strict=True))


def f1_scores(correct: IntArray, total: IntArray, predicted: IntArray) -> FloatArray:
    """F1 of each class, 2 correct_c / (total_c + predicted_c); NaN for a class without test images."""
    scores = np.divide(2 * correct, total + predicted, out=np.zeros(len(total)), where=total + predicted > 0)
    return np.where(total > 0, scores, np.nan)


@dataclass(frozen=True)
class ClassRow:
    """Figures of one class. `accuracy` and `recall` are one number (both names are in use); None where undefined."""

    label: int
    name: str
    group: str
    train_count: int
    test_count: int
    accuracy: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    most_confused_with: str | None
    confused_images: int


def per_class_table(
    predictions: ArrayLike,
    references: ArrayLike,
    class_counts: ArrayLike,
    label_names: Sequence[str] | None = None,
    thresholds: ShotThresholds | None = None,
) -> list[ClassRow]:
    """One row for each class 0..C-1, in label order.

    A prediction of -1 (rejected) counts as an error and as a confusion with nobody. `most_confused_with` is the class
    that most of the class's images were mistaken for (ties: the lower index), None when there was no mistake.

    Example:
        >>> rows = per_class_table([0, 0, 1], [0, 1, 1], class_counts=[500, 5], label_names=["cat", "dog"])
        >>> rows[1].group, rows[1].accuracy, rows[1].most_confused_with
        ('few', 0.5, 'cat')
    """
    counts = counts_array(class_counts)
    predicted, labels = paired(predictions, references, len(counts), allow_rejection=True)
    names = [str(name) for name in label_names] if label_names is not None else [str(c) for c in range(len(counts))]
    if len(names) != len(counts):
        raise ValueError(f"{len(names)} label_names for {len(counts)} class_counts; pass both in label order.")
    known = labels >= 0
    total = np.bincount(labels[known], minlength=len(counts))
    correct = np.bincount(labels[known & (predicted == labels)], minlength=len(counts))
    chosen = np.bincount(predicted[predicted >= 0], minlength=len(counts))
    rivals, mistaken = most_confused(predicted[known], labels[known], len(counts))
    f1 = f1_scores(correct, total, chosen)
    masks = group_masks(counts, thresholds or ShotThresholds())
    group_of = {int(c): group for group, mask in masks.items() for c in np.flatnonzero(mask)}
    return [
        ClassRow(
            label=c,
            name=names[c],
            group=group_of[c],
            train_count=int(counts[c]),
            test_count=int(total[c]),
            accuracy=_ratio(correct[c], total[c]),
            precision=_ratio(correct[c], chosen[c]),
            recall=_ratio(correct[c], total[c]),
            f1=float(f1[c]) if total[c] else None,
            most_confused_with=names[rivals[c]] if mistaken[c] else None,
            confused_images=int(mistaken[c]),
        )
        for c in range(len(counts))
    ]


def most_confused(predicted: IntArray, labels: IntArray, num_classes: int) -> tuple[IntArray, IntArray]:
    """The most frequent wrong class of each class and how often, [C] and [C], without a C x C matrix."""
    wrong = (predicted != labels) & (predicted >= 0)
    pairs, times = np.unique(labels[wrong] * num_classes + predicted[wrong], return_counts=True)
    rivals, mistaken = np.full(num_classes, -1), np.zeros(num_classes, dtype=np.int64)
    order = np.lexsort((-pairs, times))  # ascending: of the writes below, the largest and lowest-indexed pair stays
    rivals[pairs[order] // num_classes] = pairs[order] % num_classes
    mistaken[pairs[order] // num_classes] = times[order]
    return rivals, mistaken


def group_confusion(
    predictions: ArrayLike,
    references: ArrayLike,
    class_counts: ArrayLike,
    thresholds: ShotThresholds | None = None,
) -> dict[str, dict[str, float | None]]:
    """Share of each true group's images predicted right, and wrong into each group (or rejected).

    Rows are the true groups, columns "right", "many", "medium", "few", "rejected"; a row sums to 1, or is None
    throughout for a group without test images.
    """
    counts = counts_array(class_counts)
    predicted, labels = paired(predictions, references, len(counts), allow_rejection=True)
    groups = group_masks(counts, thresholds or ShotThresholds())
    rows = {}
    for name, mask in groups.items():
        inside = (labels >= 0) & mask[labels]
        wrong = predicted[inside & (predicted != labels)]
        row = {"right": np.sum(inside & (predicted == labels))}
        row |= {other: np.sum(of_other[wrong[wrong >= 0]]) for other, of_other in groups.items()}
        row["rejected"] = np.sum(wrong < 0)
        rows[name] = {column: _ratio(value, inside.sum()) for column, value in row.items()}
    return rows


def _ratio(part: np.integer, whole: np.integer) -> float | None:
    return float(part / whole) if whole else None
