"""Is this the benchmark? Loaded sizes and counts against the record, and classes of the test set against training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ccsam_hf.data.records import BenchmarkRecord


def check_record(
    record: BenchmarkRecord, train_labels: np.ndarray, validation_size: int | None, test_size: int
) -> None:
    """ValueError that lists every number of a natural long tail that differs from the record."""
    counts = np.bincount(train_labels)
    found = {
        "training images": (record.train_size, len(train_labels)),
        "classes": (record.num_classes, len(counts)),
        "images in the largest class": (record.largest_class, int(counts.max())),
        "images in the smallest class": (record.smallest_class, int(counts.min())),
        "test images": (record.test_size, test_size),
    }
    if validation_size is not None and record.validation_size is not None:
        found["validation images"] = (record.validation_size, validation_size)
    differ = [f"{got:,} {what} instead of {want:,}" for what, (want, got) in found.items() if want not in (None, got)]
    if differ:
        raise ValueError(f"This is not {record.title}: {'; '.join(differ)}. {_SUBSET}")


def check_pool(record: BenchmarkRecord, counts: np.ndarray, test_size: int, split_seed: int | None) -> None:
    """ValueError unless the classes hold `class_size` images each, or are a long-tailed draw of that (and no seed)."""
    assert record.class_size is not None
    assert record.num_classes is not None
    full = record.class_size
    drawn_at = full / counts[-1]
    draw = [int(full * drawn_at ** (-c / (record.num_classes - 1))) for c in range(record.num_classes)]
    predrawn = len(counts) == record.num_classes and counts.tolist() == draw and drawn_at > 1
    balanced = counts.tolist() == [full] * record.num_classes
    if test_size != record.test_size or not (balanced or predrawn):
        raise ValueError(
            f"This is not {record.title}: {len(counts)} classes with {counts.min():,} to {counts.max():,} training "
            f"images ({counts.sum():,} in all) and {test_size:,} test images, instead of {record.num_classes} with "
            f"{full:,} each and {record.test_size:,}. {_SUBSET}"
        )
    if predrawn and split_seed is not None:
        raise ValueError(
            f"The {counts.sum():,} training images are already a draw of {record.title} at imbalance ratio "
            f"{drawn_at:g}, in draw order: pass split_seed=None (--split_seed none), which takes the first n of each "
            f"class, or give the whole {full * record.num_classes:,} images"
        )


def check_draw(record: BenchmarkRecord, counts: np.ndarray, sizes: np.ndarray, imbalance_ratio: float) -> None:
    """ValueError when a pool is too small for the full benchmark at this ratio (a pre-drawn one at a lower ratio)."""
    if sizes.max() != record.class_size:
        raise ValueError(
            f"The training images at hand ({counts.min():,} to {counts.max():,} a class) are too few for "
            f"{record.title} at imbalance ratio {imbalance_ratio:g}: use a ratio of at least "
            f"{counts.max() / counts.min():g}, or give the whole training set"
        )


def check_test_classes(train_counts: np.ndarray, test_labels: np.ndarray, names: Sequence[str]) -> None:
    """ValueError when the test set has a class without a training image."""
    for label in np.unique(test_labels):
        if label >= len(train_counts) or train_counts[label] == 0:
            name = f" ({names[label]!r})" if label < len(names) else ""
            raise ValueError(
                f"The test set has {int((test_labels == label).sum())} images of class {label}{name}, of which "
                "training has none: add training images of it, or leave it out of the test set"
            )


_SUBSET = "If a part of it is meant, pass subset=True (--subset)"
