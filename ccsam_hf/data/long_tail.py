"""Long-tailed subsets and hold-outs of any labelled data set: positions only, no image is decoded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import datasets
import numpy as np
from torch.utils.data import Subset

from .counts import LabelledDataset, class_names, counts_from_labels, labels_of


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
    if not 1.0 <= imbalance_ratio < float("inf"):
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


def make_long_tailed(
    dataset: Any,
    imbalance_ratio: float,
    profile: str = "exponential",
    label_column: str = "label",
    split_seed: int | None = 0,
    *,
    cap: int | None = None,
    class_order: str | Sequence[int] = "ascending",
) -> Any:
    """A long-tailed selection of a data set, of the same kind as the data set itself.

    The class of rank r gets int(n_max f_r) images, where f falls from 1 to 1/imbalance_ratio (see
    `ccsam_hf.data.profiles`) and n_max is the most that every class can serve. With the defaults the images are
    those of the LDAM-DRW split (Cao et al. 2019) that the field uses for CIFAR-LT.

    Args:
        dataset: `datasets.Dataset`, `LabelledDataset`, torch `Subset` of one, or a list of dicts.
        imbalance_ratio: largest over smallest class, >= 1.
        profile: "exponential", "step" or "pareto".
        label_column: where the labels stand.
        split_seed: shuffles each class before its first n images are taken; None takes the first n as they stand
            (for sets whose order is a draw already).
        cap: at most this many images in the largest class; the ratio stays.
        class_order: classes from the largest to the smallest: "ascending" or "descending" labels, "by_count" (the
            most frequent class of the data set first), or a permutation of the labels.

    Raises:
        ValueError: see `labels_of` and `class_counts`; a ratio that leaves a class without an image.
    """
    labels = labels_of(dataset, label_column)
    counts = counts_from_labels(labels, num_classes(dataset, labels, label_column), None, label_column)
    sizes = long_tailed_sizes(counts.numpy(), imbalance_ratio, profile, cap=cap, class_order=class_order)
    return select(dataset, long_tailed_positions(labels, sizes, split_seed))


def num_classes(dataset: Any, labels: np.ndarray, label_column: str = "label") -> int:
    """Number of names of a `ClassLabel` column, else the largest label + 1."""
    names = class_names(dataset, label_column)
    return len(names) if names else int(labels.max()) + 1


def long_tailed_sizes(
    available: np.ndarray,
    imbalance_ratio: float,
    profile: str = "exponential",
    *,
    cap: int | None = None,
    class_order: str | Sequence[int] = "ascending",
) -> np.ndarray:
    """n_c by label, int64 [C], from the images `available` for each class, int64 [C]. See `make_long_tailed`."""
    order = _ranked_classes(available, class_order)
    sizes = np.empty_like(available)
    sizes[order] = class_sizes(class_fractions(profile, imbalance_ratio, len(available)), available[order], cap)
    return sizes


def long_tailed_positions(labels: np.ndarray, sizes: np.ndarray, split_seed: int | None = 0) -> np.ndarray:
    """The first n_c positions of each shuffled class, classes ascending, each in draw order."""
    return np.concatenate([order[:n] for order, n in zip(shuffled_classes(labels, split_seed), sizes, strict=True)])


def positions_outside(labels: np.ndarray, sizes: np.ndarray, split_seed: int | None, limit: int) -> np.ndarray:
    """The last positions of each shuffled class that `long_tailed_positions` left out, at most `limit` a class.

    Taken from the end of the order, they are the same for every imbalance ratio of equal n_max.
    """
    if limit < 1:
        raise ValueError(f"A validation set needs at least 1 image a class, got limit {limit}")
    orders = shuffled_classes(labels, split_seed)
    return np.concatenate([order[n:][-limit:] for order, n in zip(orders, sizes, strict=True)])


def shuffled_classes(labels: np.ndarray, split_seed: int | None) -> list[np.ndarray]:
    """Positions of each class in dataset order, each shuffled in place, classes ascending; None: not shuffled.

    One legacy generator runs through all classes: that, and no newer generator, gives the images of the LDAM-DRW
    split.
    """
    generator = None if split_seed is None else np.random.RandomState(split_seed)
    by_class = np.argsort(labels, kind="stable")
    orders = np.split(by_class, np.cumsum(np.bincount(labels))[:-1])
    for order in orders:
        if generator is not None:
            generator.shuffle(order)
    return orders


def stratified_holdout(labels: np.ndarray, fraction: float, split_seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Positions (kept, held out): round(fraction n_c) of each class, one image of each always stays.

    Both ascending. A class with a single image has none held out.
    """
    if not 0.0 < fraction < 1.0:
        raise ValueError(f"The hold-out must be a fraction between 0 and 1, got {fraction}")
    held = []
    for order in shuffled_classes(labels, split_seed):
        held.append(order[: min(round(fraction * len(order)), max(len(order) - 1, 0))])
    held_out = np.sort(np.concatenate(held))
    if len(held_out) == 0:
        raise ValueError(f"A hold-out of {fraction:g} of each class is empty here: choose a larger fraction")
    return np.setdiff1d(np.arange(len(labels)), held_out, assume_unique=True), held_out


def select(dataset: Any, positions: np.ndarray) -> Any:
    """The items at these positions as a data set of the same kind, lazily."""
    if isinstance(dataset, (datasets.Dataset, LabelledDataset)):
        return dataset.select(positions)
    if isinstance(dataset, Subset):
        return Subset(dataset.dataset, np.asarray(dataset.indices)[positions].tolist())
    return [dataset[position] for position in positions]


def _ranked_classes(available: np.ndarray, class_order: str | Sequence[int]) -> np.ndarray:
    """Labels from the largest class of the profile to the smallest, int64 [C]."""
    ascending = np.arange(len(available))
    if isinstance(class_order, str):
        named = {
            "ascending": ascending,
            "descending": ascending[::-1],
            "by_count": np.argsort(-available, kind="stable"),
        }
        if class_order not in named:
            raise ValueError(
                f"Unknown class order {class_order!r}: choose one of {', '.join(named)}, or list the labels"
            )
        return named[class_order]
    order = np.asarray(class_order, np.int64)
    if not np.array_equal(np.sort(order), ascending):
        raise ValueError(f"class_order must name each label 0..{len(available) - 1} once, got {list(class_order)}")
    return order
