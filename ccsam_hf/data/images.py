"""Small images held in memory as one tensor and augmented batch by batch."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, Self

import datasets
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ccsam_hf.data.augment import SMALL_AUGMENTATIONS, augmented_pixels, cut_out
from ccsam_hf.data.counts import labels_of
from ccsam_hf.data.draws import draw_keys
from ccsam_hf.data.labelled import LabelledDataset
from ccsam_hf.data.listing import listed_at


class TensorImages(LabelledDataset):
    """Items {"pixel_values": float32 [3, H, W], "labels": int} from images decoded once, uint8 [N, 3, H, W].

    Indexed by a `Draw` (from ccsam_hf's samplers) an image is augmented as a function of (seed, epoch, position);
    indexed by a plain integer it is only normalised, so a loader without such a sampler trains without augmentation.
    `pixel_values` = (image / 255 - mean) / std.

    Args:
        images: uint8 [N, 3, H, W], on any device (a CUDA tensor needs a loader without workers).
        labels: [N], integers from 0.
        mean, std: for each channel, on the scale 0..1.
        augmentation: one of `SMALL_AUGMENTATIONS`.
        seed: of the augmentation.
    """

    def __init__(
        self,
        images: Tensor,
        labels: np.ndarray | Sequence[int],
        *,
        mean: Sequence[float],
        std: Sequence[float],
        augmentation: str = "none",
        seed: int = 0,
    ) -> None:
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images must be uint8 [N, 3, H, W], got {images.dtype} {list(images.shape)}")
        if len(images) != len(labels):
            raise ValueError(f"{len(images)} images but {len(labels)} labels")
        if augmentation not in SMALL_AUGMENTATIONS:
            raise ValueError(
                f"Unknown augmentation {augmentation!r} for small images: choose one of "
                f"{', '.join(SMALL_AUGMENTATIONS)}"
            )
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
        augmentation: str = "none",
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
        choice = SMALL_AUGMENTATIONS[self.augmentation]
        images = self.images[torch.from_numpy(chosen).to(self.images.device)]
        if keys is not None:
            images = augmented_pixels(images, keys, self.seed, choice)
        # Two kernels: fused, a value could be rounded differently by its place in the batch.
        pixels = images.float().mul_(self._scale).add_(self._shift)
        if keys is not None:
            pixels = cut_out(pixels, keys, self.seed, choice)
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


def open_rgb(stored: dict[str, Any], where: str) -> Image.Image:
    """One undecoded `datasets.Image` value, decoded whole and in RGB; ValueError names its file and `where` it is."""
    content, path = stored["bytes"], stored["path"]
    try:
        with Image.open(path if content is None else io.BytesIO(content)) as image:
            return image.convert("RGB")
    except Exception as error:  # PIL raises OSError, SyntaxError, ValueError and more, by format
        name = f"{path} ({where})" if path else where
        raise ValueError(
            f"The image {name} cannot be decoded ({type(error).__name__}: {error}): replace it, or load with "
            "`skip_broken_images` (--skip_broken_images)"
        ) from error
