"""Images of any size, decoded when asked for and transformed by timm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import datasets
import numpy as np
import torch
from PIL import Image
from timm.data import create_transform

from ccsam_hf.data.counts import labels_of
from ccsam_hf.data.draws import Draw, draw_keys, seeded
from ccsam_hf.data.images import open_rgb
from ccsam_hf.data.labelled import LabelledDataset
from ccsam_hf.data.listing import listed_at
from ccsam_hf.data.records import BenchmarkRecord

Transform = Callable[[Image.Image], torch.Tensor]

# timm's training transform under these names: random resized crop and flip, then colour jitter or RandAugment.
LARGE_AUGMENTATIONS: dict[str, dict[str, Any] | None] = {
    "none": None,
    "crop_flip": {"color_jitter": None},
    "imagenet": {"color_jitter": 0.4},
    "randaugment": {"color_jitter": None, "auto_augment": "rand-m9-mstd0.5"},
}


@dataclass(frozen=True)
class ImageConfig:
    """How an image becomes a model's input, in timm's terms; write the same into the model (`create_model`)."""

    input_size: tuple[int, int, int] = (3, 224, 224)
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    crop_pct: float = 0.875
    interpolation: str = "bilinear"

    @classmethod
    def from_record(cls, record: BenchmarkRecord) -> ImageConfig:
        return cls(record.input_size, record.mean, record.std, record.crop_pct, record.interpolation)


def evaluation_transform(config: ImageConfig) -> Transform:
    """Resize by the crop percentage, centre crop, normalise: what timm and `pipeline` do with a published model."""
    return create_transform(**asdict(config), is_training=False)


def training_transform(config: ImageConfig, augmentation: str) -> Transform | None:
    """timm's random transform of that name in `LARGE_AUGMENTATIONS`; None for "none"."""
    if augmentation not in LARGE_AUGMENTATIONS:
        raise ValueError(
            f"Unknown augmentation {augmentation!r} for images transformed one by one: choose one of "
            f"{', '.join(LARGE_AUGMENTATIONS)}"
        )
    options = LARGE_AUGMENTATIONS[augmentation]
    if options is None:
        return None
    settings = asdict(config)
    settings.pop("crop_pct")
    return create_transform(**settings, is_training=True, **options)


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
        augmentation: str = "none",
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
        self._training = training_transform(self.config, augmentation) or self._evaluation

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
