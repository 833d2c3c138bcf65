"""Lists of image files with labels: reading, checking, and a data set over them that decodes lazily."""

from __future__ import annotations

import json
import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from .image_files import contents, image_fault

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


def require_files(images: ImageList) -> None:
    """ValueError when a listed file is missing: names the first, its line, and where it was looked for.

    Reads one directory listing for each folder, not one entry for each image.
    """
    missing = missing_files(images)
    if len(missing) == 0:
        return
    first = int(missing[0])
    raise ValueError(
        f"{len(missing)} of {len(images)} images of {images.source} are missing, the first is {images.where(first)}; "
        f"looked for {images.root / images.paths[first]}; {contents(_existing_parent(images, first))}. "
        "Give the folder that the listed paths start from as `data_dir`, or drop broken images with "
        "`skip_broken_images` (--skip_broken_images)"
    )


def missing_files(images: ImageList) -> np.ndarray:
    """Positions of listed files that do not exist, ascending, int64."""
    folders: dict[str, list[int]] = defaultdict(list)
    for position, path in enumerate(images.paths):
        folders[os.path.dirname(path)].append(position)
    missing: list[int] = []
    for folder, positions in folders.items():
        names = _names_in(images.root / folder)
        missing += [position for position in positions if os.path.basename(images.paths[position]) not in names]
    return np.sort(np.array(missing, np.int64))


def without_broken(images: ImageList) -> ImageList:
    """Only the entries whose file can be decoded whole; warns with the number and the first of the dropped ones.

    Decodes every image once, on a small scale where the format allows it.
    """
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        faults = list(pool.map(lambda path: image_fault(images.root / path), images.paths))
    broken = [position for position, fault in enumerate(faults) if fault]
    if not broken:
        return images
    shown = "; ".join(f"{images.where(position)}: {faults[position]}" for position in broken[:3])
    warnings.warn(f"Dropped {len(broken)} of {len(images)} images of {images.source}: {shown}", stacklevel=2)
    return images.select(np.array([position for position, fault in enumerate(faults) if not fault], np.int64))


def _names_in(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return set()
    except PermissionError as error:
        raise ValueError(f"No permission to list the image folder {folder}: change its mode") from error


def _existing_parent(images: ImageList, position: int) -> Path:
    """The deepest folder on the way to an image that exists, but not above the root."""
    folder = (images.root / images.paths[position]).parent
    while not folder.is_dir() and folder != images.root:
        folder = folder.parent
    return folder


def _slim(entry: dict[str, Any]) -> Any:
    """Keep two fields of each image, annotation and category: the rest (licences, sizes) is most of the file."""
    if "file_name" in entry:
        return entry["id"], entry["file_name"]
    if "category_id" in entry:
        return entry["image_id"], entry["category_id"]
    if "name" in entry and "id" in entry:
        return entry["id"], entry["name"]
    return entry


def read_inaturalist(path: Path, root: Path) -> tuple[ImageList, dict[int, str]]:
    """(images in the file's order, category names by id) of `train2018.json` or `val2018.json`.

    Raises:
        ValueError: unreadable or other JSON; an image without a category or with two.
    """
    try:
        content = json.loads(read_text(path, "Annotation file"), object_hook=_slim)
        images, annotations = content["images"], content["annotations"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is not iNaturalist's annotation format (`images`, `annotations`, `categories`), or was cut off: "
            f"{type(error).__name__} {error}"
        ) from error
    if not images:
        raise ValueError(f"Annotation file {path} lists no image")
    categories = dict(annotations)
    missing = [name for number, name in images if number not in categories]
    if missing or len(annotations) != len(categories):
        raise ValueError(
            f"{path.name}: {len(missing)} images have no category (the first: {missing[:1]}) and "
            f"{len(annotations) - len(categories)} have more than one; each needs exactly one"
        )
    labels = np.fromiter((categories[number] for number, _ in images), np.int64, len(images))
    places = np.arange(1, len(images) + 1)
    listed = ImageList(path.name, root, [name for _, name in images], labels, places, entry="image")
    return listed, dict(content.get("categories", []))
