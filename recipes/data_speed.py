"""Measures the data side: time and memory at the benchmarks' real sizes.

    python recipes/data_speed.py
    python recipes/data_speed.py --list_images 2000 --small_images 256     # a short trial

Everything is generated: no data set is needed. Rates are of one core and one process, as a loader's worker has.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from torch.utils.data import DataLoader

from ccsam_hf.data.augment import augmentation_names
from ccsam_hf.data.counts import class_counts
from ccsam_hf.data.image_lists import as_dataset, check_list, read_inaturalist
from ccsam_hf.data.records import BENCHMARKS
from ccsam_hf.data.samplers import SAMPLING_SCHEMES, ClassSampler
from ccsam_hf.data.views import TensorImages

INATURALIST = BENCHMARKS["inat2018"]


def long_tail(images: int, classes: int, largest: int, smallest: int) -> np.ndarray:
    """Labels int64 [images] whose counts fall from `largest` to `smallest`, of the benchmark's size."""
    ranks = np.linspace(0, 1, classes)
    low, high = 0.01, 100.0
    for _ in range(60):  # the steepness at which the counts add up, by bisection
        bend = (low * high) ** 0.5
        counts = smallest + ((largest - smallest) * (1 - ranks) ** bend).astype(np.int64)
        low, high = (bend, high) if counts.sum() > images else (low, bend)
    counts[1 : 1 + abs(images - counts.sum())] += np.sign(images - counts.sum())
    return np.repeat(np.arange(classes), counts)


def write_annotations(path: Path, labels: np.ndarray) -> None:
    """An annotation file of iNaturalist's layout, field by field as long as the real one."""
    with path.open("w", encoding="utf-8") as file:
        file.write('{"info": {"year": 2018}, "images": [')
        for i, label in enumerate(labels):
            image = {
                "license": 3,
                "file_name": f"train_val2018/Plantae/{label}/{i:032x}.jpg",
                "rights_holder": f"Observer number {i % 20_000}",
                "height": 800,
                "width": 600,
                "id": i,
            }
            file.write(("" if i == 0 else ", ") + json.dumps(image))
        file.write('], "annotations": [')
        rows = ({"id": i, "image_id": i, "category_id": int(label)} for i, label in enumerate(labels))
        file.writelines(("" if i == 0 else ", ") + json.dumps(row) for i, row in enumerate(rows))
        categories = [{"id": c, "name": f"Genus species{c}"} for c in range(int(labels.max()) + 1)]
        file.write(f'], "categories": {json.dumps(categories)}}}')


def timed(function: Callable[[], Any]) -> tuple[str, Any]:
    """(wall and processor time in words, result)."""
    wall, processor = time.perf_counter(), time.process_time()
    result = function()
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    return f"{wall:.3f} s ({processor:.3f} s of processor time)", result


def peak_memory() -> float:
    """Largest resident memory of this process so far, GB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e9 if sys.platform == "darwin" else 1e6)


def measure_inaturalist(images: int) -> tuple[datasets.Dataset, list[str]]:
    """Build the training set from its JSON: target 5 s and 1 GB above the imports for 437,513 entries."""
    classes = min(INATURALIST.num_classes or 0, images // 10)
    largest, smallest = INATURALIST.largest_class, INATURALIST.smallest_class
    assert largest is not None
    assert smallest is not None
    labels = long_tail(images, classes, min(largest, images // classes * 20), smallest)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train2018.json"
        write_annotations(path, labels)

        def build() -> datasets.Dataset:
            listed, names = read_inaturalist(path, Path(folder))
            check_list(listed, classes)
            return as_dataset(listed, [names[c] for c in range(classes)])

        size, before = path.stat().st_size / 1e6, peak_memory()
        took, dataset = timed(build)
    grown = peak_memory() - before
    return dataset, [f"training set of {len(labels):,} images from {size:.0f} MB of JSON: {took}, {grown:.2f} GB"]


def measure_orders(dataset: datasets.Dataset) -> list[str]:
    """Class counts and one epoch's order under each scheme: target 0.2 s."""
    took, counts = timed(lambda: class_counts(dataset))
    lines = [f"class counts of {len(counts):,} classes: {took}"]
    labels = np.repeat(np.arange(len(counts)), counts.numpy())
    for scheme in SAMPLING_SCHEMES:
        sampler = ClassSampler(labels, scheme, epochs=10 if scheme == "progressive" else None)
        took, _ = timed(partial(sampler.order, 1))
        lines.append(f"epoch order, {scheme}: {took}")
    return lines


def measure_batches(images: int, batch_size: int = 128) -> list[str]:
    """32-pixel batches through a loader: target 10,000 images/s with crop and flip on one core."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (images, 3, 32, 32), generator=generator, dtype=torch.uint8)
    lines = []
    for augmentation in augmentation_names("batch"):
        data = TensorImages(pixels, np.arange(images) % 10, mean=(0.5,) * 3, std=(0.25,) * 3, augmentation=augmentation)
        loader = DataLoader(data, batch_size, sampler=ClassSampler(data.labels))
        start = time.process_time()
        for _ in loader:
            pass
        rate = images / (time.process_time() - start)
        lines.append(f"32-pixel batches of {batch_size}, {augmentation}: {rate:,.0f} images/s of processor time")
    return lines


def main(arguments: list[str] | None = None) -> None:
    """Print every measurement, one a line."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--list_images", type=int, default=INATURALIST.train_size, help="entries of the image list")
    parser.add_argument("--small_images", type=int, default=12_800, help="images of 32 pixels")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    dataset, lines = measure_inaturalist(options.list_images)
    for line in lines + measure_orders(dataset) + measure_batches(options.small_images):
        print(line)


if __name__ == "__main__":
    main()
