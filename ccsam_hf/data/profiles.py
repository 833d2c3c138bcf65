"""How the class sizes of a long-tailed set fall off: pure functions of rank, ratio and number of classes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def exponential_profile(imbalance_ratio: float, num_classes: int) -> np.ndarray:
    """f_r = IR^(-r/(C-1)), r = 0..C-1 (Cui et al. 2019; the CIFAR-LT of the LDAM-DRW split)."""
    return imbalance_ratio ** (-_ranks(num_classes) / max(num_classes - 1, 1))


def step_profile(imbalance_ratio: float, num_classes: int) -> np.ndarray:
    """f_r = 1 for the first half of the classes (rounded down), 1/IR for the others (Buda et al. 2018)."""
    return np.where(_ranks(num_classes) < num_classes // 2, 1.0, 1.0 / imbalance_ratio)


def pareto_profile(imbalance_ratio: float, num_classes: int) -> np.ndarray:
    """f_r = (r + 1)^(-a), a = log IR / log C: sizes by rank under a power law that ends at 1/IR."""
    exponent = np.log(imbalance_ratio) / np.log(num_classes) if num_classes > 1 else 0.0
    return (_ranks(num_classes) + 1.0) ** -exponent


PROFILES: dict[str, Callable[[float, int], np.ndarray]] = {
    "exponential": exponential_profile,
    "step": step_profile,
    "pareto": pareto_profile,
}


def class_fractions(profile: str, imbalance_ratio: float, num_classes: int) -> np.ndarray:
    """Sizes relative to the largest class by rank, float64 [C], from 1 down to 1/IR."""
    if profile not in PROFILES:
        raise ValueError(f"Unknown profile {profile!r}: choose one of {', '.join(PROFILES)}")
    if not imbalance_ratio >= 1.0:
        raise ValueError(f"The imbalance ratio is largest over smallest class, at least 1: got {imbalance_ratio}")
    return PROFILES[profile](float(imbalance_ratio), num_classes)


def class_sizes(fractions: np.ndarray, available: np.ndarray, cap: int | None = None) -> np.ndarray:
    """n_r = int(n_max f_r), int64 [C], with the largest n_max that every class can serve, at most `cap`.

    `available` [C] counts the images at hand, in the same order as `fractions`. For a balanced set n_max is the
    size of its classes.
    """
    if cap is not None and cap < 1:
        raise ValueError(f"cap must be at least 1 image, got {cap}")
    # int(n f) <= a holds up to n < (a + 1) / f; the loop takes back what rounding may have added.
    largest = int(np.floor((available + 1) / fractions).min())
    largest = min(largest, int(available.max()), largest if cap is None else cap)
    while (np.floor(largest * fractions) > available).any():
        largest -= 1
    sizes = np.floor(largest * fractions).astype(np.int64)
    if sizes.min() < 1:
        raise ValueError(
            f"With {largest} images in the largest class an imbalance ratio of {1 / fractions.min():g} leaves "
            f"{int((sizes < 1).sum())} classes without an image: choose a ratio of at most {largest}"
        )
    return sizes


def _ranks(num_classes: int) -> np.ndarray:
    return np.arange(num_classes, dtype=np.float64)
