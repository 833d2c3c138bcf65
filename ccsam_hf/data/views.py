"""From a loaded benchmark to what a trainer reads: augmented training images and plain evaluation images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import datasets
import torch

from ccsam_hf.data.benchmarks import Benchmark
from ccsam_hf.data.images import TensorImages
from ccsam_hf.data.transforms import ImageConfig, TransformedImages

LARGEST_IN_MEMORY = 64


@dataclass(frozen=True)
class ImageViews:
    """Model inputs of each part; `config` is what the model must be told to read raw images alike."""

    train: TensorImages | TransformedImages
    validation: TensorImages | TransformedImages | None
    test: TensorImages | TransformedImages
    config: ImageConfig

    def to(self, device: torch.device | str) -> Self:
        """The same with images in memory on that device, where they are then augmented; others stay files."""

        def moved(part: TensorImages | TransformedImages) -> TensorImages | TransformedImages:
            return part.to(device) if isinstance(part, TensorImages) else part

        validation = None if self.validation is None else moved(self.validation)
        return replace(self, train=moved(self.train), validation=validation, test=moved(self.test))


def image_views(
    data: Benchmark,
    *,
    augmentation: str = "none",
    seed: int = 0,
    config: ImageConfig | None = None,
    in_memory: bool | None = None,
) -> ImageViews:
    """The parts of `data` as model inputs; only the training part is augmented, and only under ccsam_hf's samplers.

    Args:
        data: what `load_benchmark` or `load_image_folder` gave.
        augmentation: in memory one of `SMALL_AUGMENTATIONS`, else of `LARGE_AUGMENTATIONS`.
        seed: of the augmentation.
        config: input size and normalisation; default: the record's.
        in_memory: hold decoded images in one tensor; default: up to 64 pixels a side.
    """
    config = config or ImageConfig.from_record(data.record)
    small = max(config.input_size[1:]) <= LARGEST_IN_MEMORY if in_memory is None else in_memory

    def view(part: datasets.Dataset, name: str) -> TensorImages | TransformedImages:
        if not small:
            return TransformedImages(part, config, augmentation=name, seed=seed)
        images = TensorImages.from_dataset(part, mean=config.mean, std=config.std, augmentation=name, seed=seed)
        if tuple(images.images.shape[1:]) != tuple(config.input_size):
            raise ValueError(
                f"The images are {list(images.images.shape[1:])}, the input size is {list(config.input_size)}: images "
                "in memory are not resized, choose that input size or in_memory=False"
            )
        return images

    validation = None if data.validation is None else view(data.validation, "none")
    return ImageViews(view(data.train, augmentation), validation, view(data.test, "none"), config)
