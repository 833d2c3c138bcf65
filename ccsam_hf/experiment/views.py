"""A benchmark's images as the trainers take them."""

from __future__ import annotations

from typing import Any

import datasets

from ..data import Benchmark
from ..data.images import TensorImages


def training_view(data: Benchmark, augmentation: str, seed: int) -> Any:
    """The training images with an augmentation that is a pure function of (seed, epoch, position)."""
    return _view(data, data.train, augmentation, seed)


def evaluation_view(data: Benchmark, holdout: bool) -> Any:
    """The test images, or those held out of training, prepared as at inference."""
    chosen = data.validation if holdout else data.test
    assert chosen is not None
    return _view(data, chosen, "none", 0)


def _view(data: Benchmark, part: datasets.Dataset, augmentation: str, seed: int) -> Any:
    return TensorImages.from_dataset(
        part,
        mean=data.record.mean,
        std=data.record.std,
        augmentation=augmentation,
        seed=seed,
        image_column=data.image_column,
        label_column=data.label_column,
    )
