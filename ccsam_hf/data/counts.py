"""Labels and class counts of a data set, read from its label column and never from its images."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Self

import datasets
import numpy as np
import pyarrow as pa
import torch
from torch.utils.data import Dataset, IterableDataset, Subset


class LabelledDataset(Dataset[dict[str, Any]]):
    """Base of ccsam_hf's data sets: items are dicts, labels are at hand as an array.

    `labels_of`, `class_counts`, `make_long_tailed` and the samplers work on every subclass.
    """

    @property
    @abstractmethod
    def labels(self) -> np.ndarray:
        """Class of each item, int64 [len(self)]."""

    @abstractmethod
    def select(self, positions: Sequence[int] | np.ndarray) -> Self:
        """The items at these positions, in this order."""

    @abstractmethod
    def __getitem__(self, index: int) -> dict[str, Any]: ...

    def __len__(self) -> int:
        return len(self.labels)


_PASS_COUNTS = "pass `class_counts=` (the number of training images of each class, in label order)"


def labels_of(dataset: Any, label_column: str = "label") -> np.ndarray:
    """Class of each item, int64 [N].

    Reads a `datasets.Dataset` (also selected, formatted or with transforms), a `LabelledDataset`, a torch `Subset`
    of them, or a list of dicts.

    Raises:
        ValueError: no such column (lists the columns); labels that are not single integers; negative labels; an
            empty set; a stream or another kind of data set (pass `class_counts` instead).
    """
    if isinstance(dataset, Subset):
        return labels_of(dataset.dataset, label_column)[np.asarray(dataset.indices, np.int64)]
    if isinstance(dataset, (datasets.IterableDataset, IterableDataset)):
        raise ValueError(f"A streaming data set cannot be counted without reading it whole: {_PASS_COUNTS}")
    if isinstance(dataset, LabelledDataset):
        labels = dataset.labels
    elif isinstance(dataset, datasets.Dataset):
        labels = _column_of_dataset(dataset, label_column)
    elif isinstance(dataset, (list, tuple)):
        labels = _column_of_items(dataset, label_column)
    elif isinstance(dataset, datasets.DatasetDict):
        raise ValueError(f"Got all splits ({', '.join(dataset)}): choose one of them, for instance the training split")
    else:
        raise ValueError(
            f"Labels of a {type(dataset).__name__} are not known without loading its items: {_PASS_COUNTS}"
        )
    return _checked(labels, label_column)


def class_counts(dataset: Any, label_column: str = "label", num_classes: int | None = None) -> torch.Tensor:
    """n_c: number of items of each class, int64 [C], without decoding an image.

    C is `num_classes`, or the number of names of a `ClassLabel` column, or the largest label + 1.

    Raises:
        ValueError: what `labels_of` refuses; a label outside 0..C-1; a class without an item.
    """
    labels = labels_of(dataset, label_column)
    names = class_names(dataset, label_column)
    if num_classes is None:
        num_classes = len(names) if names else int(labels.max()) + 1
    return counts_from_labels(labels, num_classes, names, label_column)


def counts_from_labels(
    labels: np.ndarray, num_classes: int, names: Sequence[str] | None = None, label_column: str = "label"
) -> torch.Tensor:
    """n_c, int64 [num_classes], of labels int64 [N] that fill 0..num_classes-1 without a gap, else ValueError."""
    if labels.max() >= num_classes:
        position = int(labels.argmax())
        raise ValueError(
            f"Label {labels.max()} (item {position}, column {label_column!r}) lies outside 0..{num_classes - 1}: "
            f"correct the label or raise the number of classes ({num_classes})"
        )
    counts = np.bincount(labels, minlength=num_classes)
    empty = np.flatnonzero(counts == 0)
    if len(empty):
        shown = ", ".join(_named(int(c), names) for c in empty[:5]) + (", ..." if len(empty) > 5 else "")
        raise ValueError(
            f"{len(empty)} of {num_classes} classes have no image: {shown}. Give each an image, or drop them and "
            f"renumber the labels to 0..{num_classes - len(empty) - 1}"
        )
    return torch.from_numpy(counts)


def class_names(dataset: Any, label_column: str = "label") -> list[str] | None:
    """Names in label order where the column is a `datasets.ClassLabel`, else None."""
    if isinstance(dataset, Subset):
        return class_names(dataset.dataset, label_column)
    if isinstance(dataset, datasets.Dataset):
        feature = dataset.features.get(label_column)
        return list(feature.names) if isinstance(feature, datasets.ClassLabel) else None
    return None


def _named(label: int, names: Sequence[str] | None) -> str:
    return f"{label} ({names[label]!r})" if names and label < len(names) else str(label)


def _column_of_dataset(dataset: datasets.Dataset, label_column: str) -> np.ndarray:
    if label_column not in dataset.column_names:
        raise ValueError(
            f"No column {label_column!r}; the columns are {', '.join(dataset.column_names)}: "
            "choose one of them with `label_column`"
        )
    # A format or transform of the user would decode or fail, and `dataset.data` ignores `select`: hence this path.
    table = dataset.with_format(None).select_columns(label_column).with_format("arrow")[:]
    column: pa.ChunkedArray = table[label_column]
    if len(column) == 0:
        return np.empty(0, np.int64)
    if column.null_count:
        raise ValueError(f"Column {label_column!r} lacks {column.null_count} of {len(column)} labels: drop those rows")
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        raise ValueError(
            f"Column {label_column!r} holds text: number the classes first, with "
            f"`dataset.class_encode_column({label_column!r})`"
        )
    if not pa.types.is_integer(column.type):
        raise ValueError(_not_single_integers(label_column, str(column.type)))
    return column.to_numpy()


def _column_of_items(items: Sequence[Any], label_column: str) -> np.ndarray:
    for position, item in enumerate(items):
        if not isinstance(item, dict):
            raise ValueError(f"Item {position} is a {type(item).__name__}, not a dict with {label_column!r}")
        if label_column not in item:
            raise ValueError(
                f"Item {position} has no {label_column!r}; its keys are {', '.join(item)}: "
                "choose one of them with `label_column`"
            )
    return np.array([np.asarray(item[label_column]) for item in items])


def _checked(labels: np.ndarray, label_column: str) -> np.ndarray:
    if len(labels) == 0:
        raise ValueError("The data set is empty: there is nothing to count or to train on")
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(_not_single_integers(label_column, f"{labels.dtype} of shape {labels.shape}"))
    if labels.min() < 0:
        raise ValueError(
            f"Label {labels.min()} (item {int(labels.argmin())}, column {label_column!r}) is negative: drop unlabelled "
            "items and number the classes 0..C-1"
        )
    return labels.astype(np.int64, copy=False)


def _not_single_integers(label_column: str, found: str) -> str:
    return (
        f"Column {label_column!r} holds {found}, not one integer per image: multi-label and soft labels are not "
        "supported; cast single labels to int64"
    )
