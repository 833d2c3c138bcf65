"""Small generated images in the official layouts of the benchmarks, for ``--smoke`` and tests."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image

from ..data import BENCHMARKS
from .options import OWN_IMAGES

COUNTS = (20, 14, 9, 7, 4, 2)
TESTS = 4
# Before the draw; enough for an imbalance ratio of 100.
CIFAR_CLASS_SIZE = 100
WORDNET_IDS = ("n01440764", "n01443537", "n01484850", "n01491361", "n01494475", "n01496331")
PLACES = ("airfield", "airplane_cabin", "airport_terminal", "alcove", "alley", "amphitheater")
Entry = tuple[str, int]


def write_smoke_data(benchmark: str, folder: Path) -> None:
    """Images and lists of six classes with `COUNTS` training and `TESTS` test images each, unless they are there."""
    if folder.exists():
        return
    folder.mkdir(parents=True)
    family = OWN_IMAGES if benchmark == OWN_IMAGES else BENCHMARKS[benchmark].family
    _WRITERS[family](benchmark, folder)


def class_picture(label: int, number: int, side: int = 20) -> Image.Image:
    """A picture whose colour and stripes tell its class, under noise of its own."""
    noise = np.random.default_rng((label, number)).integers(0, 80, (side, side + 4, 3))
    stripes = 90 * (np.arange(side)[:, None, None] // (1 + label % 3) % 2)
    colour = np.array([[200, 30, 30], [30, 200, 30], [30, 30, 200]])[label % 3] // (1 + label // 3)
    return Image.fromarray((noise + (stripes + colour) // 2).clip(0, 255).astype(np.uint8))


def _save_all(folder: Path, entries: Sequence[Entry]) -> None:
    for number, (path, label) in enumerate(entries):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        class_picture(label, number).save(folder / path)


def _entries(counts: Sequence[int], name: Callable[[int, int], str]) -> list[Entry]:
    return [(name(label, number), label) for label, count in enumerate(counts) for number in range(count)]


def _write_lists(benchmark: str, folder: Path) -> None:
    """`path label` lines over ImageNet's or Places' folders."""
    record = BENCHMARKS[benchmark]
    classes = WORDNET_IDS if benchmark == "imagenet-lt" else PLACES

    def path(part: str, offset: int) -> Callable[[int, int], str]:
        if benchmark != "imagenet-lt":
            return lambda c, i: f"{part}/{classes[c]}/{offset + 100 * c + i:08d}.jpg"
        stem = {"train": "{c}_{i}", "val": "ILSVRC2012_val_{i:08d}"}[part]
        return lambda c, i: f"{part}/{classes[c]}/" + stem.format(c=classes[c], i=offset + 100 * c + i) + ".JPEG"

    parts = {
        "train": _entries(COUNTS, path("train", 0)),
        "validation": _entries([1] * len(COUNTS), path("train", 5000)),
        "test": _entries([TESTS] * len(COUNTS), path("val", 0)),
    }
    for role, entries in parts.items():
        (folder / record.files[role]).write_text(
            "".join(f"{name} {label}\n" for name, label in entries), encoding="utf-8"
        )
        _save_all(folder, entries)


def _write_inaturalist(benchmark: str, folder: Path) -> None:
    """The COCO-like JSON files and the folders of iNaturalist 2018."""
    record = BENCHMARKS[benchmark]
    categories = [{"id": label, "name": f"Species {label}", "supercategory": "Aves"} for label, _ in enumerate(COUNTS)]
    for part, (role, counts) in enumerate({"train": COUNTS, "test": (TESTS,) * len(COUNTS)}.items()):
        entries = _entries(counts, lambda c, i, part=part: f"train_val2018/Aves/{c}/{part}{c:02d}{i:029d}.jpg")  # type: ignore[misc]
        _save_all(folder, entries)
        images = [{"id": number, "file_name": name} for number, (name, _) in enumerate(entries)]
        annotations = [
            {"id": number, "image_id": number, "category_id": label} for number, (_, label) in enumerate(entries)
        ]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (folder / record.files[role]).write_text(json.dumps(content), encoding="utf-8")


def _write_cifar(benchmark: str, folder: Path) -> None:
    """Parquet files with the columns of the Hub's data set, balanced: loading draws the long tail."""
    record = BENCHMARKS[benchmark]
    names = [f"class {label}" for label in range(len(COUNTS))]
    features = datasets.Features(
        {record.image_column: datasets.Image(), record.label_column: datasets.ClassLabel(names=names)}
    )
    for part, (split, size) in enumerate({"train": CIFAR_CLASS_SIZE, "test": TESTS}.items()):
        labels = [label for label in range(len(COUNTS)) for _ in range(size)]
        pictures = [class_picture(c, 10_000 * part + i, 32).crop((0, 0, 32, 32)) for i, c in enumerate(labels)]
        rows: dict[str, list[Any]] = {record.image_column: pictures, record.label_column: labels}
        table = datasets.Dataset.from_dict(rows, features=features)
        table.to_parquet(str(folder / f"{split}-00000-of-00001.parquet"))


def _write_folders(benchmark: str, folder: Path) -> None:
    """One folder for each class, without a test set."""
    _save_all(folder, _entries(COUNTS, lambda c, i: f"{PLACES[c]}/{i:03d}.jpg"))


_WRITERS: dict[str, Callable[[str, Path], None]] = {
    "cifar": _write_cifar,
    "lists": _write_lists,
    "inaturalist": _write_inaturalist,
    OWN_IMAGES: _write_folders,
    # The digits are real and in the package.
    "digits": lambda benchmark, folder: None,
}
