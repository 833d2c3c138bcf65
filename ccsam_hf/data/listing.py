"""Lists of image files with labels: reading, checking, and a `datasets.Dataset` over them that decodes lazily."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

_LINE = "<line>"


@dataclass(frozen=True)
class ImageList:
    """Files and labels as some list names them: entry i is `paths[i]` below `root`, class `labels[i]`.

    `source` is the name of the list and `lines` the 1-based place of each entry in it: both go into messages.
    """

    source: str
    root: Path
    paths: list[str]
    labels: np.ndarray
    lines: np.ndarray
    entry: str = "line"

    def __len__(self) -> int:
        return len(self.paths)

    def where(self, position: int) -> str:
        return f"{self.paths[position]} ({self.entry} {self.lines[position]} of {self.source})"

    def select(self, positions: np.ndarray) -> ImageList:
        chosen = [self.paths[position] for position in positions]
        return replace(self, paths=chosen, labels=self.labels[positions], lines=self.lines[positions])


def read_text(path: Path, what: str) -> str:
    """A text file, or a ValueError that names it, where it was looked for and what lies there."""
    try:
        return path.read_text(encoding="utf-8")
    except PermissionError as error:
        raise ValueError(f"No permission to read {what} {path}: change its mode or copy it") from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ValueError(f"{what} {path} does not exist; {contents(path.parent)}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{what} {path} is not a text file: {error}") from error


def contents(folder: Path) -> str:
    """What a message says about a folder that lacks something."""
    if not folder.is_dir():
        return f"its folder {folder} does not exist either"
    try:
        names = sorted(os.listdir(folder))
    except PermissionError:
        return f"{folder} may not be listed (no permission)"
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    return f"{folder} holds {shown or 'nothing'}"


def read_list(path: Path, root: Path) -> ImageList:
    """The field's format: one image a line, path relative to `root`, blank, label. Empty lines are passed over.

    Raises:
        ValueError: unreadable file; a line that is no path and integer; nothing in it.
    """
    paths, labels, lines = [], [], []
    for number, line in enumerate(read_text(path, "Image list").splitlines(), start=1):
        if not line.strip():
            continue
        name, _, label = line.strip().rpartition(" ")
        try:
            labels.append(int(label))
        except ValueError as error:
            raise ValueError(f"{path.name}, line {number}: expected `path label`, found {line!r}") from error
        if not name:
            raise ValueError(f"{path.name}, line {number}: expected `path label`, found {line!r}")
        paths.append(name.strip())
        lines.append(number)
    if not paths:
        raise ValueError(f"Image list {path} is empty")
    return ImageList(path.name, root, paths, np.array(labels, np.int64), np.array(lines, np.int64))


def check_list(images: ImageList, num_classes: int) -> None:
    """ValueError for a label outside 0..C-1 or a file listed twice, with the file and line."""
    outside = np.flatnonzero((images.labels < 0) | (images.labels >= num_classes))
    if len(outside):
        first = int(outside[0])
        raise ValueError(
            f"{len(outside)} labels lie outside 0..{num_classes - 1}; the first is {images.labels[first]} of "
            f"{images.where(first)}: correct the list"
        )
    if len(set(images.paths)) == len(images.paths):
        return
    twice = next(path for path, count in Counter(images.paths).items() if count > 1)
    places = [i for i, path in enumerate(images.paths) if path == twice][:2]
    listed = " and ".join(f"{images.entry} {images.lines[i]} (label {images.labels[i]})" for i in places)
    raise ValueError(
        f"{len(images) - len(set(images.paths))} images of {images.source} are listed twice, for instance {twice}: "
        f"{listed}. Keep one entry of each"
    )


def check_disjoint(train: ImageList, other: ImageList) -> None:
    """ValueError when an image to be tested on is also one to be trained on."""
    shared = set(train.paths).intersection(other.paths) if train.root == other.root else set()
    if shared:
        first = other.paths.index(min(shared))
        raise ValueError(
            f"{len(shared)} images of {other.source} are also in {train.source}, for instance {other.where(first)}: "
            "remove them from one of the two"
        )


def as_dataset(images: ImageList, names: Sequence[str]) -> datasets.Dataset:
    """Columns `image` (decoded on access), `label` (with names) and `line`, without touching a file.

    The description of the data set says where an entry stands in the list, for messages on access (`listed_at`).
    """
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=list(names)),
            "line": datasets.Value("int64"),
        }
    )
    root = str(images.root)
    files = pa.array([os.path.join(root, path) for path in images.paths], pa.string())
    # Built in its storage form: casting a column of paths to images copies it several times over.
    image = pa.StructArray.from_arrays([pa.nulls(len(images), pa.binary()), files], names=["bytes", "path"])
    table = pa.table({"image": image, "label": images.labels, "line": images.lines})
    info = datasets.DatasetInfo(features=features, description=f"{images.entry} {_LINE} of {images.source}")
    return datasets.Dataset(datasets.table.InMemoryTable(table), info=info)


def listed_at(dataset: datasets.Dataset, row: dict[str, Any], position: int) -> str:
    """Where the row of a data set made by `as_dataset` is listed ("line 7 of train.txt"); else its number."""
    if "line" not in row or _LINE not in dataset.info.description:
        return f"image {position}"
    return dataset.info.description.replace(_LINE, str(row["line"]))
