"""Augmentation of small images in batches: crop, flip, a policy and Cutout, each a pure function of the draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ccsam_hf.data.draws import DrawKeys, integers, uniform
from ccsam_hf.data.policies import apply_operations, autoaugment_operations, randaugment_operations

_CROP, _FLIP, _CUTOUT, _POLICY = 1, 2, 3, 10


@dataclass(frozen=True)
class Augmentation:
    """What happens to a small training image, in this order. Sizes are fractions of the image's side."""

    padding: float = 0.0
    flip: bool = False
    policy: Literal["none", "autoaugment", "randaugment"] = "none"
    cutout: float = 0.0


# At 32 pixels: padding 4 and a hole of 16, the field's CIFAR recipe.
SMALL_AUGMENTATIONS: dict[str, Augmentation] = {
    "none": Augmentation(),
    "crop": Augmentation(padding=1 / 8),
    "crop_flip": Augmentation(padding=1 / 8, flip=True),
    "autoaugment_cutout": Augmentation(padding=1 / 8, flip=True, policy="autoaugment", cutout=1 / 2),
    "randaugment": Augmentation(padding=1 / 8, flip=True, policy="randaugment"),
}


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


def augmented_pixels(images: Tensor, keys: DrawKeys, seed: int, choice: Augmentation) -> Tensor:
    """Crop, flip and policy, uint8 [B, 3, H, W] to the same shape."""
    padding = round(choice.padding * images.shape[2])
    if padding or choice.flip:
        corner = integers(2 * padding + 1, seed, *keys, stream=_CROP, count=2)
        flips = uniform(seed, *keys, stream=_FLIP)[:, 0] < (0.5 if choice.flip else 0.0)
        images = crop_and_flip(images, corner[:, 0], corner[:, 1], flips, padding)
    if choice.policy == "autoaugment":
        images = apply_operations(images, autoaugment_operations(keys, seed, _POLICY))
    elif choice.policy == "randaugment":
        images = apply_operations(images, randaugment_operations(keys, seed, _POLICY))
    return images


def cut_out(normalised: Tensor, keys: DrawKeys, seed: int, choice: Augmentation) -> Tensor:
    """Normalised float [B, 3, H, W] with a hole of 0, the mean colour, in each image (DeVries & Taylor 2017)."""
    if not choice.cutout:
        return normalised
    height, width = normalised.shape[2:]
    centre = integers(np.array([height, width]), seed, *keys, stream=_CUTOUT, count=2)
    mask = cutout_mask(centre[:, 0], centre[:, 1], round(choice.cutout * height), height, width)
    return normalised * torch.from_numpy(mask).to(normalised.device)
