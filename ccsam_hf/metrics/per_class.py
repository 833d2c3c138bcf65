"""The table behind every average: one row a class."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ccsam_hf.metrics.accuracy import group_masks
from ccsam_hf.metrics.inputs import ArrayLike, IntArray, counts_array, paired
from ccsam_hf.metrics.summary import f1_scores
from ccsam_hf.shots import ShotThresholds


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
    group_of = {int(c): group for group, mask in _groups(counts, thresholds).items() for c in np.flatnonzero(mask)}
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
    groups = _groups(counts, thresholds)
    rows = {}
    for name, mask in groups.items():
        inside = (labels >= 0) & mask[labels]
        wrong = predicted[inside & (predicted != labels)]
        row = {"right": np.sum(inside & (predicted == labels))}
        row |= {other: np.sum(of_other[wrong[wrong >= 0]]) for other, of_other in groups.items()}
        row["rejected"] = np.sum(wrong < 0)
        rows[name] = {column: _ratio(value, inside.sum()) for column, value in row.items()}
    return rows


def _groups(counts: IntArray, thresholds: ShotThresholds | None) -> dict[str, np.ndarray]:
    return group_masks(counts, thresholds or ShotThresholds())


def _ratio(part: np.integer, whole: np.integer) -> float | None:
    return float(part / whole) if whole else None
