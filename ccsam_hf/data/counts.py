"""Labels and class counts of a data set, read from its label column and never from its images."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import datasets
import numpy as np
import pyarrow as pa
import torch
from torch.utils.data import Dataset, IterableDataset, Subset
from tqdm.auto import tqdm


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
    of them, or a list of dicts. Any other torch `Dataset` with a length is read item by item, with a progress bar,
    since only its items tell their labels.

    Raises:
        ValueError: no such column (lists the columns); labels that are not single integers; negative labels; an
            empty set; a stream or something that is no data set (pass `class_counts` instead).
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
    elif isinstance(dataset, Dataset) and hasattr(dataset, "__len__"):
        bar = tqdm(range(len(dataset)), f"reading the labels of a {type(dataset).__name__}", leave=False)
        labels = _column_of_items((dataset[i] for i in bar), label_column)
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


def found_label_column(dataset: Any, label_column: str = "label") -> str:
    """The column of labels: ``label_column``, or ``labels`` where that is "label" and the data set has only the other.

    transformers' examples name the column either way. The first item tells the columns of a list or of a data set
    without column names; a stream is not touched.
    """
    if label_column != "label":
        return label_column
    if isinstance(dataset, Subset):
        return found_label_column(dataset.dataset)
    if isinstance(dataset, (LabelledDataset, IterableDataset)) or not hasattr(dataset, "__getitem__"):
        return label_column
    if isinstance(dataset, datasets.Dataset):
        names: Any = dataset.column_names
    else:
        first = dataset[0] if len(dataset) else {}
        names = first if isinstance(first, Mapping) else ()
    return "labels" if "labels" in names and "label" not in names else label_column


def class_names(dataset: Any, label_column: str = "label") -> list[str] | None:
    """Names in label order where the column is a `datasets.ClassLabel`, else None."""
    if isinstance(dataset, Subset):
        return class_names(dataset.dataset, label_column)
    if isinstance(dataset, datasets.Dataset):
        feature = dataset.features.get(label_column)
        return list(feature.names) if isinstance(feature, datasets.ClassLabel) else None
    return None


def check_label_order(dataset: Any, label_names: Sequence[str], label_column: str = "label") -> None:
    """Refuses a data set whose class names stand in another order than the model's.

    A model trained or evaluated on such a data set learns or is measured by permuted labels, without any other sign.
    Names that only one of the two has are passed over, and so is a data set without names.

    Args:
        dataset: with a `datasets.ClassLabel` column; others have no names to compare.
        label_names: the model's classes in label order (`config.id2label`).
        label_column: where the labels stand.

    Raises:
        ValueError: a name that both have, but as different labels.
    """
    names = class_names(dataset, label_column)
    if names is None:
        return
    label_of = {name: label for label, name in enumerate(label_names)}
    moved = [(name, label) for label, name in enumerate(names) if label_of.get(name, label) != label]
    if moved:
        shown = ", ".join(f"{name!r} is {c} in the data and {label_of[name]} in the model" for name, c in moved[:3])
        renumber = f"dataset.align_labels_with_mapping(model.config.label2id, {label_column!r})"
        raise ValueError(
            f"{len(moved)} of {len(names)} classes have another label in column {label_column!r} than in the model: "
            f"{shown}. Renumber the data by `{renumber}`, or build the model with the data's names (`label_names=`)"
        )


def check_class_counts(
    given: Sequence[int] | np.ndarray | torch.Tensor, dataset: Any, label_column: str = "label"
) -> None:
    """Refuses class counts that contradict labels that can be read; a class without an item may have any count.

    Args:
        given: training images of each class, [C].
        dataset: what `labels_of` reads. Streams and other data sets are passed over: their labels cannot be read.
        label_column: where the labels stand.

    Raises:
        ValueError: lists the first classes whose count differs.
    """
    if not readable_labels(dataset):
        return
    counts = np.asarray(given)
    found = np.bincount(labels_of(dataset, label_column), minlength=len(counts))
    if len(found) > len(counts):
        raise ValueError(
            f"class_counts has {len(counts)} entries, but column {label_column!r} holds label {len(found) - 1}"
        )
    wrong = np.flatnonzero((found != counts) & (found > 0))
    if len(wrong):
        shown = ", ".join(f"class {c} has {found[c]} items and {counts[c]} in class_counts" for c in wrong[:5])
        raise ValueError(
            f"class_counts contradicts the labels of column {label_column!r} for {len(wrong)} of {len(counts)} "
            f"classes: {shown}. Leave class_counts out, they are then counted; or pass their training set"
        )


def readable_labels(dataset: Any) -> bool:
    """Whether `labels_of` reads the labels of a data set of this kind without loading its items."""
    if isinstance(dataset, Subset):
        return readable_labels(dataset.dataset)
    return isinstance(dataset, (datasets.Dataset, LabelledDataset, list, tuple))


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


def _column_of_items(items: Iterable[Any], label_column: str) -> np.ndarray:
    labels = []
    for position, item in enumerate(items):
        if not isinstance(item, Mapping):
            raise ValueError(
                f"Item {position} is a {type(item).__name__}, not a dict with {label_column!r}: {_PASS_COUNTS}"
            )
        if label_column not in item:
            raise ValueError(
                f"Item {position} has no {label_column!r}; its keys are {', '.join(item)}: "
                "choose one of them with `label_column`"
            )
        labels.append(np.asarray(item[label_column]))
    return np.array(labels)


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
