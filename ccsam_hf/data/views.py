"""Model inputs from images: held in memory as one tensor, or decoded when asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import datasets
import numpy as np
import torch
from torch import Tensor

from .augment import (
    Augmentation,
    CropFlipCutout,
    ImageConfig,
    chosen_augmentation,
    evaluation_transform,
)
from .benchmarks import Benchmark
from .counts import LabelledDataset, labels_of
from .draws import Draw, draw_keys, seeded
from .image_files import open_rgb
from .image_lists import listed_at


class TensorImages(LabelledDataset):
    """Items {"pixel_values": float32 [3, H, W], "labels": int} from images decoded once, uint8 [N, 3, H, W].

    Indexed by a `Draw` (from ccsam_hf's samplers) an image is augmented as a function of (seed, epoch, position);
    indexed by a plain integer it is only normalised, so a loader without such a sampler trains without augmentation.
    `pixel_values` = (image / 255 - mean) / std.

    Args:
        images: uint8 [N, 3, H, W], on any device (a CUDA tensor needs a loader without workers).
        labels: [N], integers from 0.
        mean, std: for each channel, on the scale 0..1.
        augmentation: a name of `AUGMENTATIONS` that is for images in memory, or an `Augmentation`.
        seed: of the augmentation.
    """

    def __init__(
        self,
        images: Tensor,
        labels: np.ndarray | Sequence[int],
        *,
        mean: Sequence[float],
        std: Sequence[float],
        augmentation: str | Augmentation = "none",
        seed: int = 0,
    ) -> None:
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images must be uint8 [N, 3, H, W], got {images.dtype} {list(images.shape)}")
        if len(images) != len(labels):
            raise ValueError(f"{len(images)} images but {len(labels)} labels")
        self._augment = chosen_augmentation(augmentation, "batch")
        self.images = images
        self._labels = np.asarray(labels, np.int64)
        self.mean, self.std = tuple(mean), tuple(std)
        self.augmentation, self.seed = augmentation, seed
        channel = torch.tensor([self.mean, self.std], dtype=torch.float64).view(2, 1, 3, 1, 1)
        self._scale = (1 / (255 * channel[1])).float().to(images.device)
        self._shift = (-channel[0] / channel[1]).float().to(images.device)

    @classmethod
    def from_dataset(
        cls,
        dataset: datasets.Dataset,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        augmentation: str | Augmentation = "none",
        seed: int = 0,
        image_column: str = "image",
        label_column: str = "label",
    ) -> TensorImages:
        """Decode every image of a data set now. They must be of one size."""
        labels = labels_of(dataset, label_column)
        images = decoded(dataset, image_column)
        return cls(images, labels, mean=mean, std=std, augmentation=augmentation, seed=seed)

    @property
    def labels(self) -> np.ndarray:
        return self._labels

    def select(self, positions: Sequence[int] | np.ndarray) -> Self:
        chosen = np.asarray(positions, np.int64)
        images = self.images[torch.from_numpy(chosen).to(self.images.device)]
        return self._like(images, self._labels[chosen])

    def to(self, device: torch.device | str) -> Self:
        """The same data with its images on another device; augmentation then runs there."""
        return self._like(self.images.to(device), self._labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Items of a batch, computed together; torch's loader calls this by itself."""
        batch = self.batch(indices)
        rows = zip(batch["pixel_values"], self._labels[np.asarray(indices, np.int64)].tolist(), strict=True)
        return [{"pixel_values": pixels, "labels": label} for pixels, label in rows]

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """{"pixel_values": float32 [B, 3, H, W], "labels": int64 [B]} on the images' device."""
        chosen = np.asarray(indices, np.int64)
        keys = draw_keys(indices)
        images = self.images[torch.from_numpy(chosen).to(self.images.device)]
        if keys is not None:
            images = self._augment(images, keys, self.seed)
        # Two kernels: fused, a value could be rounded differently by its place in the batch.
        pixels = images.float().mul_(self._scale).add_(self._shift)
        if keys is not None and isinstance(self._augment, CropFlipCutout):
            pixels = self._augment.cut_out(pixels, keys, self.seed)
        return {"pixel_values": pixels, "labels": torch.from_numpy(self._labels[chosen]).to(self.images.device)}

    def _like(self, images: Tensor, labels: np.ndarray) -> Self:
        return type(self)(images, labels, mean=self.mean, std=self.std, augmentation=self.augmentation, seed=self.seed)


def decoded(dataset: datasets.Dataset, image_column: str = "image") -> Tensor:
    """All images of a column as uint8 [N, 3, H, W], in RGB.

    Raises:
        ValueError: no such column; an image that cannot be decoded or differs in size, by its number.
    """
    if image_column not in dataset.column_names:
        raise ValueError(f"No column {image_column!r}; the columns are {', '.join(dataset.column_names)}")
    kept = [name for name in dataset.column_names if name in (image_column, "line")]
    undecoded = dataset.with_format(None).select_columns(kept)
    undecoded = undecoded.cast_column(image_column, datasets.Image(decode=False)).with_format("arrow")
    arrays: list[np.ndarray] = []
    for table in undecoded.iter(batch_size=1000):
        for row in table.to_pylist():
            array = np.asarray(open_rgb(row[image_column], listed_at(dataset, row, len(arrays))))
            if arrays and array.shape != arrays[0].shape:
                raise ValueError(
                    f"Image {len(arrays)} has {array.shape[1]} x {array.shape[0]} pixels, the first has "
                    f"{arrays[0].shape[1]} x {arrays[0].shape[0]}: images of several sizes are not held in memory, "
                    "use `TransformedImages` (in_memory=False)"
                )
            arrays.append(array)
    if not arrays:
        raise ValueError("The data set is empty: there is nothing to decode")
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()


class TransformedImages(LabelledDataset):
    """Items {"pixel_values": float32 [3, H, W], "labels": int} of a `datasets.Dataset`, transformed on access.

    Indexed by a `Draw` (from ccsam_hf's samplers) an image gets the random transform, as a function of (seed, epoch,
    position); indexed by a plain integer the evaluation transform, so a loader without such a sampler trains without
    augmentation.
    """

    def __init__(
        self,
        dataset: datasets.Dataset,
        config: ImageConfig | None = None,
        *,
        augmentation: str | Augmentation = "none",
        seed: int = 0,
        image_column: str = "image",
        label_column: str = "label",
    ) -> None:
        self.config = config or ImageConfig()
        self.augmentation, self.seed = augmentation, seed
        self.image_column, self.label_column = image_column, label_column
        self._labels = labels_of(dataset, label_column)
        if image_column not in dataset.column_names:
            raise ValueError(f"No column {image_column!r}; the columns are {', '.join(dataset.column_names)}")
        self.dataset = dataset
        kept = [name for name in dataset.column_names if name in (image_column, "line")]
        undecoded = dataset.with_format(None).select_columns(kept)
        self._stored = undecoded.cast_column(image_column, datasets.Image(decode=False))
        self._evaluation = evaluation_transform(self.config)
        self._training = chosen_augmentation(augmentation, "transform")(self.config)

    @property
    def labels(self) -> np.ndarray:
        return self._labels

    def select(self, positions: Sequence[int] | np.ndarray) -> Self:
        return type(self)(
            self.dataset.select(positions),
            self.config,
            augmentation=self.augmentation,
            seed=self.seed,
            image_column=self.image_column,
            label_column=self.label_column,
        )

    def __getitem__(self, index: int) -> dict[str, Any]:
        position = int(index)
        row = self._stored[position]
        image = open_rgb(row[self.image_column], listed_at(self._stored, row, position))
        if isinstance(index, Draw):
            with seeded(self.seed, index.epoch, index.position):
                pixels = self._training(image)
        else:
            pixels = self._evaluation(image)
        return {"pixel_values": pixels, "labels": int(self._labels[position])}

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        draw_keys(indices)  # refuses a mixture
        return [self[index] for index in indices]


LARGEST_IN_MEMORY = 64


@dataclass(frozen=True)
class ImageViews:
    """Model inputs of each part; give `config` to the model, so that it reads raw images alike."""

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
    augmentation: str | Augmentation = "none",
    seed: int = 0,
    config: ImageConfig | None = None,
    in_memory: bool | None = None,
) -> ImageViews:
    """The parts of `data` as model inputs; only the training part is augmented, and only under ccsam_hf's samplers.

    Args:
        data: what `load_benchmark` or `load_images` gave.
        augmentation: a name of `AUGMENTATIONS`, or an `Augmentation`.
        seed: of the augmentation.
        config: input size and normalisation; default: the record's.
        in_memory: hold decoded images in one tensor; default: up to 64 pixels a side.
    """
    config = config or ImageConfig.from_record(data.record)
    small = max(config.input_size[1:]) <= LARGEST_IN_MEMORY if in_memory is None else in_memory

    def view(part: datasets.Dataset, name: str | Augmentation) -> TensorImages | TransformedImages:
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
