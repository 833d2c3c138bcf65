"""AutoAugment's CIFAR policy and RandAugment for batches of small images: which operation, how strong, which sign."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ccsam_hf.data.draws import DrawKeys, integers, uniform
from ccsam_hf.data.pixel_ops import PIXEL_OPS

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
