"""What every source of images hands over: splits with columns `image` and `label`, and the label names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import datasets


@dataclass(frozen=True)
class Splits:
    """Data as a source holds them, before any long-tailed draw or hold-out.

    `origin` says where they came from; `dropped` counts broken images left out.
    """

    train: datasets.Dataset
    validation: datasets.Dataset | None
    test: datasets.Dataset
    label_names: tuple[str, ...]
    origin: str
    dropped: int = 0


def distinct_names(names: Sequence[str], keys: Sequence[str]) -> tuple[str, ...]:
    """Label names without doubles: a name that occurs twice gets its key in brackets (ImageNet has two cranes)."""
    counts = Counter(names)
    return tuple(name if counts[name] == 1 else f"{name} ({key})" for name, key in zip(names, keys, strict=True))


def standard_columns(dataset: datasets.Dataset, image_column: str, label_column: str, source: str) -> datasets.Dataset:
    """Only `image` and `label`, renamed from the source's columns; ValueError lists the columns when one lacks."""
    for column in (image_column, label_column):
        if column not in dataset.column_names:
            raise ValueError(f"{source} has no column {column!r}; its columns are {', '.join(dataset.column_names)}")
    dataset = dataset.select_columns([image_column, label_column])
    renamed = {image_column: "image", label_column: "label"}
    return dataset.rename_columns({old: new for old, new in renamed.items() if old != new})
