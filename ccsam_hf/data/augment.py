"""Augmentations by name or as objects, each random draw a pure function of (seed, epoch, position).

Images in memory are augmented in batches on their device; images decoded one by one get a transform of timm's.

    fog = Augmentation(batch=add_fog)       # add_fog(images uint8 [B, 3, H, W], keys, seed) gives images again
    image_views(data, augmentation=fog)
    register_augmentation("fog")(fog)       # then also augmentation="fog", and --augmentation fog
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from timm.data import create_transform
from torch import Tensor
from torch.nn import functional as F

from .._shared.registry import Registry
from .draws import DrawKeys, integers, uniform
from .pixel_ops import PIXEL_OPS
from .records import BenchmarkRecord

_CROP, _FLIP, _CUTOUT, _POLICY = 1, 2, 3, 10
Transform = Callable[[Image.Image], Tensor]


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


@dataclass(frozen=True)
class TimmTransform:
    """timm's training transform: random resized crop and flip, and what `options` of `create_transform` add."""

    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, config: ImageConfig) -> Transform:
        settings = asdict(config)
        settings.pop("crop_pct")
        return create_transform(**settings, is_training=True, **self.options)


@dataclass(frozen=True)
class CropFlipCutout:
    """What happens to a batch of small training images, in this order. Sizes are fractions of the image's side.

    Args:
        padding: black border from which the crop is cut.
        flip: mirror half of the images.
        policy: AutoAugment's CIFAR policy, or RandAugment with 2 operations at magnitude 9.
        cutout: side of a square hole of the mean colour, cut after normalisation (DeVries & Taylor 2017).
    """

    padding: float = 0.0
    flip: bool = False
    policy: Literal["none", "autoaugment", "randaugment"] = "none"
    cutout: float = 0.0

    def __call__(self, images: Tensor, keys: DrawKeys, seed: int) -> Tensor:
        """Crop, flip and policy, uint8 [B, 3, H, W] to the same shape."""
        padding = round(self.padding * images.shape[2])
        if padding or self.flip:
            corner = integers(2 * padding + 1, seed, *keys, stream=_CROP, count=2)
            flips = uniform(seed, *keys, stream=_FLIP)[:, 0] < (0.5 if self.flip else 0.0)
            images = crop_and_flip(images, corner[:, 0], corner[:, 1], flips, padding)
        if self.policy == "autoaugment":
            images = apply_operations(images, autoaugment_operations(keys, seed, _POLICY))
        elif self.policy == "randaugment":
            images = apply_operations(images, randaugment_operations(keys, seed, _POLICY))
        return images

    def cut_out(self, normalised: Tensor, keys: DrawKeys, seed: int) -> Tensor:
        """Normalised float [B, 3, H, W] with a hole of 0, the mean colour, in each image."""
        if not self.cutout:
            return normalised
        height, width = normalised.shape[2:]
        centre = integers(np.array([height, width]), seed, *keys, stream=_CUTOUT, count=2)
        mask = cutout_mask(centre[:, 0], centre[:, 1], round(self.cutout * height), height, width)
        return normalised * torch.from_numpy(mask).to(normalised.device)


@dataclass(frozen=True)
class Augmentation:
    """One choice of training augmentation, for images in memory, for images transformed one by one, or for both.

    Args:
        batch: for `TensorImages`: (images uint8 [B, 3, H, W], keys, seed) to images of the same shape. `keys` holds
            epoch and position of each image; draw with `uniform` and `integers` of ccsam_hf.data from (seed, *keys),
            so that a resume repeats the draws. None: not for images in memory.
        transform: for `TransformedImages`: an `ImageConfig` to a transform, from an RGB Pillow image to the model's
            input float32 [3, H, W]. It may draw from the global generators, which are seeded for each image. With
            worker processes it must pickle. None: not for images transformed one by one.
    """

    batch: Callable[[Tensor, DrawKeys, int], Tensor] | None = None
    transform: Callable[[ImageConfig], Transform] | None = None


AUGMENTATIONS: Registry[Augmentation] = Registry(
    "augmentation",
    {
        # At 32 pixels: padding 4 and a hole of 16, the field's CIFAR recipe.
        "none": Augmentation(CropFlipCutout(), evaluation_transform),
        "crop": Augmentation(CropFlipCutout(padding=1 / 8)),
        "crop_flip": Augmentation(CropFlipCutout(padding=1 / 8, flip=True), TimmTransform({"color_jitter": None})),
        "autoaugment_cutout": Augmentation(CropFlipCutout(1 / 8, flip=True, policy="autoaugment", cutout=1 / 2)),
        "randaugment": Augmentation(
            CropFlipCutout(1 / 8, flip=True, policy="randaugment"),
            TimmTransform({"color_jitter": None, "auto_augment": "rand-m9-mstd0.5"}),
        ),
        "imagenet": Augmentation(transform=TimmTransform({"color_jitter": 0.4})),
    },
)
register_augmentation = AUGMENTATIONS.register


def augmentation_names(part: Literal["batch", "transform"]) -> list[str]:
    """Names of the augmentations for images in memory ("batch") or transformed one by one ("transform")."""
    return [name for name, choice in AUGMENTATIONS.items() if getattr(choice, part) is not None]


def chosen_augmentation(choice: str | Augmentation, part: Literal["batch", "transform"]) -> Any:
    """That part of a registered or given augmentation.

    Raises:
        ValueError: an unknown name, with the nearest; an augmentation that is not for such images.
    """
    found = AUGMENTATIONS.find(choice) if isinstance(choice, str) else choice
    if not isinstance(found, Augmentation):
        raise ValueError(f"augmentation={choice!r} is a {type(found).__name__}: give a name or an `Augmentation`")
    if getattr(found, part) is None:
        where = {"batch": "images in memory", "transform": "images transformed one by one"}[part]
        raise ValueError(
            f"augmentation={choice!r} is not for {where}: choose one of {', '.join(augmentation_names(part))}"
        )
    return getattr(found, part)


def crop_and_flip(images: Tensor, rows: np.ndarray, columns: np.ndarray, flips: np.ndarray, padding: int) -> Tensor:
    """uint8 [B, C, H, W]: padded with black, cut at (rows, columns) in 0..2*padding, mirrored where `flips` says so."""
    batch, channels, height, width = images.shape
    padded = F.pad(images, (padding, padding, padding, padding)) if padding else images
    across = np.where(flips[:, None], np.arange(width)[::-1], np.arange(width)) + columns[:, None]
    down = np.arange(height) + rows[:, None]
    flat = (down[:, :, None] * (width + 2 * padding) + across[:, None, :]).reshape(batch, 1, -1)
    index = torch.from_numpy(flat).to(images.device).expand(batch, channels, height * width)
    return padded.reshape(batch, channels, -1).gather(2, index).view(batch, channels, height, width)


def cutout_mask(rows: np.ndarray, columns: np.ndarray, hole: int, height: int, width: int) -> np.ndarray:
    """float32 [B, 1, H, W]: 0 in a square hole centred at (row, column), cut off at the border, 1 elsewhere."""
    down, across = np.arange(height), np.arange(width)
    in_rows = (down >= rows[:, None] - hole // 2) & (down < rows[:, None] - hole // 2 + hole)
    in_columns = (across >= columns[:, None] - hole // 2) & (across < columns[:, None] - hole // 2 + hole)
    return (~(in_rows[:, None, :, None] & in_columns[:, None, None, :])).astype(np.float32)


# (operation, probability, level 0..9) twice each: Cubuk et al. 2019, the policy found on reduced CIFAR-10.
CIFAR_POLICY: tuple[tuple[tuple[str, float, int], tuple[str, float, int]], ...] = (
    (("invert", 0.1, 0), ("contrast", 0.2, 6)),
    (("rotate", 0.7, 2), ("translate_x", 0.3, 9)),
    (("sharpness", 0.8, 1), ("sharpness", 0.9, 3)),
    (("shear_y", 0.5, 8), ("translate_y", 0.7, 9)),
    (("autocontrast", 0.5, 0), ("equalize", 0.9, 0)),
    (("shear_y", 0.2, 7), ("posterize", 0.3, 7)),
    (("color", 0.4, 3), ("brightness", 0.6, 7)),
    (("sharpness", 0.3, 9), ("brightness", 0.7, 9)),
    (("equalize", 0.6, 0), ("equalize", 0.5, 0)),
    (("contrast", 0.6, 7), ("sharpness", 0.6, 5)),
    (("color", 0.7, 7), ("translate_x", 0.5, 8)),
    (("equalize", 0.3, 0), ("autocontrast", 0.4, 0)),
    (("translate_y", 0.4, 3), ("sharpness", 0.2, 6)),
    (("brightness", 0.9, 6), ("color", 0.2, 8)),
    (("solarize", 0.5, 2), ("invert", 0.0, 0)),
    (("equalize", 0.2, 0), ("autocontrast", 0.6, 0)),
    (("equalize", 0.2, 0), ("equalize", 0.6, 0)),
    (("color", 0.9, 9), ("equalize", 0.6, 0)),
    (("autocontrast", 0.8, 0), ("solarize", 0.2, 8)),
    (("brightness", 0.1, 3), ("color", 0.7, 0)),
    (("solarize", 0.4, 5), ("autocontrast", 0.9, 0)),
    (("translate_y", 0.9, 9), ("translate_y", 0.7, 9)),
    (("autocontrast", 0.9, 0), ("solarize", 0.8, 3)),
    (("equalize", 0.8, 0), ("invert", 0.1, 0)),
    (("translate_y", 0.7, 9), ("autocontrast", 0.9, 0)),
)
RANDOM_OPS = tuple(name for name in PIXEL_OPS if name != "invert")
_SIGNED = {"shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "color", "contrast", "sharpness"}
_OPS = tuple(PIXEL_OPS)


class Operations(NamedTuple):
    """One operation for each image: number in `PIXEL_OPS` int64 [B], strength float32 [B]."""

    ops: np.ndarray
    strengths: np.ndarray


def strength(op: str, level: float) -> float:
    """Strength of an operation at `level` in 0..1, without its sign (Cubuk et al. 2019, Table 6)."""
    if op.startswith("shear"):
        return 0.3 * level
    if op.startswith("translate"):
        return 150 / 331 * level
    scales = {"rotate": 30.0, "brightness": 0.9, "color": 0.9, "contrast": 0.9, "sharpness": 0.9}
    if op == "posterize":
        return float(8 - round(4 * level))
    if op == "solarize":
        return 255.0 * (1.0 - level)
    return scales.get(op, 0.0) * level


def autoaugment_operations(keys: DrawKeys, seed: int, stream: int) -> list[Operations]:
    """The two operations of a sub-policy drawn for each image; "identity" where its probability says no."""
    chosen = integers(len(CIFAR_POLICY), seed, keys.epochs, keys.positions, stream)[:, 0]
    rolls = uniform(seed, keys.epochs, keys.positions, stream + 1, count=4)
    stages = []
    for stage in range(2):
        happens = rolls[:, 2 * stage] < np.array([pair[stage][1] for pair in CIFAR_POLICY])[chosen]
        ops = np.array([_OPS.index(pair[stage][0]) for pair in CIFAR_POLICY])[chosen]
        levels = np.array([pair[stage][2] / 9 for pair in CIFAR_POLICY])[chosen]
        ops = np.where(happens, ops, _OPS.index("identity"))
        stages.append(Operations(ops, _signed_strengths(ops, levels, rolls[:, 2 * stage + 1])))
    return stages


def randaugment_operations(
    keys: DrawKeys, seed: int, stream: int, num_ops: int = 2, magnitude: int = 9
) -> list[Operations]:
    """`num_ops` operations for each image, all at level magnitude/30 (Cubuk et al. 2020)."""
    names = np.array([_OPS.index(name) for name in RANDOM_OPS])
    chosen = names[integers(len(names), seed, keys.epochs, keys.positions, stream, count=num_ops)]
    signs = uniform(seed, keys.epochs, keys.positions, stream + 1, count=num_ops)
    levels = np.full(len(chosen), magnitude / 30)
    return [Operations(ops, _signed_strengths(ops, levels, sign)) for ops, sign in zip(chosen.T, signs.T, strict=True)]


def apply_operations(images: Tensor, stages: Sequence[Operations]) -> Tensor:
    """uint8 [B, 3, H, W] after each stage, the images of one operation taken together."""
    images = images.clone()
    for stage in stages:
        for op in np.unique(stage.ops):
            if _OPS[op] == "identity":
                continue
            rows = np.flatnonzero(stage.ops == op)
            index = torch.from_numpy(rows).to(images.device)
            strengths = torch.from_numpy(stage.strengths[rows])
            images[index] = PIXEL_OPS[_OPS[op]](images[index], strengths)
    return images


def _signed_strengths(ops: np.ndarray, levels: np.ndarray, rolls: np.ndarray) -> np.ndarray:
    """float32 [B]: negative for half of the draws where the operation has two directions."""
    values = np.array([strength(_OPS[op], level) for op, level in zip(ops, levels, strict=True)])
    two_sided = np.isin(ops, [_OPS.index(name) for name in _SIGNED])
    return np.where(two_sided & (rolls < 0.5), -values, values).astype(np.float32)
