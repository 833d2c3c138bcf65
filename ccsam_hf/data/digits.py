"""The 1,797 handwritten digits (8 x 8 pixels) that the package ships: real images where there is no network.

UCI Machine Learning Repository, Alpaydin & Kaynak 1998, CC BY 4.0: see `assets/DIGITS_LICENSE.md`.
"""

from __future__ import annotations

from importlib.resources import files

import datasets
import numpy as np
from PIL import Image

TEST_IMAGES_PER_CLASS = 50
DIGIT_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def digit_arrays() -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [1797, 8, 8] with values 0..16 as in the source, and labels int64 [1797]."""
    with files("ccsam_hf.data").joinpath("assets/digits.npz").open("rb") as file, np.load(file) as stored:
        return stored["images"], stored["labels"].astype(np.int64)


def digit_test_positions(labels: np.ndarray) -> np.ndarray:
    """The fixed balanced test set: 50 images of each digit, spread evenly over the source's order, int64 [500]."""
    chosen = []
    for digit in range(10):
        positions = np.flatnonzero(labels == digit)
        chosen.append(positions[np.linspace(0, len(positions) - 1, TEST_IMAGES_PER_CLASS).round().astype(np.int64)])
    return np.sort(np.concatenate(chosen))


def load_digits() -> tuple[datasets.Dataset, datasets.Dataset]:
    """(training pool of 1,297 images, test set of 500) with columns `image` (RGB, 0..255) and `label`."""
    images, labels = digit_arrays()
    # 0..16 to 0..255, so that 8-bit readers (PIL, the image processor of a published model) see the full range.
    pixels = (images.astype(np.float64) * 255 / 16).round().astype(np.uint8)
    rows = {"image": [Image.fromarray(p).convert("RGB") for p in pixels], "label": labels}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(DIGIT_NAMES))})
    whole = datasets.Dataset.from_dict(rows, features=features)
    test = digit_test_positions(labels)
    return whole.select(np.setdiff1d(np.arange(len(labels)), test)), whole.select(test)
