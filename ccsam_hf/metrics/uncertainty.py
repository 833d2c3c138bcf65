"""How sure are we? Intervals over test images, and a paired test of two checkpoints on the same images."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..shots import ShotThresholds
from .accuracy import group_masks
from .inputs import ArrayLike, BoolArray, FloatArray, IntArray, counts_array, paired

CELLS_AT_ONCE = 2_000_000


@dataclass(frozen=True)
class PairedFigure:
    """Difference a - b of one accuracy, its bootstrap interval and the p-value of "no difference"."""

    difference: float
    interval: tuple[float, float]
    p_value: float


def bootstrap_intervals(
    predictions: ArrayLike,
    references: ArrayLike,
    class_counts: ArrayLike,
    thresholds: ShotThresholds | None = None,
    replicates: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, tuple[float, float] | None]:
    """Percentile intervals of the five accuracies when test images are drawn again with replacement.

    Drawing N images again and counting right and wrong ones of each class is one multinomial draw over 2C cells, which
    is what is drawn. The model is fixed: the spread over training runs is not in here. None for an absent group.

    Example:
        >>> bootstrap_intervals([0, 1, 1], [0, 1, 1], class_counts=[500, 5])["accuracy"]
        (1.0, 1.0)
    """
    _check(replicates, level)
    counts = counts_array(class_counts)
    predicted, labels = paired(predictions, references, len(counts), allow_rejection=True)
    cells = _cells(labels, [predicted == labels], len(counts))
    masks = _masks(counts, thresholds)
    draws = [_accuracies(drawn[:, 1], drawn.sum(axis=1), masks) for drawn in _resample(cells, replicates, seed)]
    return {name: _interval(np.concatenate([draw[name] for draw in draws]), level) for name in draws[0]}


def paired_test(
    predictions_a: ArrayLike,
    predictions_b: ArrayLike,
    references: ArrayLike,
    class_counts: ArrayLike,
    thresholds: ShotThresholds | None = None,
    replicates: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, PairedFigure | None]:
    """Do two checkpoints differ on these images? One `PairedFigure` for each of the five accuracies.

    The p-value is that of the two-sided sign-flip test: under "no difference" the two answers to an image may be
    swapped, so of the k_c images of class c that exactly one checkpoint gets right, Binomial(k_c, 1/2) are a's. For
    the overall accuracy this is McNemar's exact test, up to the Monte-Carlo error of `replicates` draws; the smallest
    possible value is 1 / (replicates + 1).
    """
    _check(replicates, level)
    counts = counts_array(class_counts)
    first, labels = paired(predictions_a, references, len(counts), allow_rejection=True)
    second, _ = paired(predictions_b, references, len(counts), allow_rejection=True)
    cells = _cells(labels, [first == labels, second == labels], len(counts))
    masks = _masks(counts, thresholds)
    observed = _differences(cells[None], masks)
    resampled = _joined(_differences(drawn, masks) for drawn in _resample(cells, replicates, seed))
    flipped = _joined(_differences(drawn, masks) for drawn in _sign_flips(cells, replicates, seed))
    figures: dict[str, PairedFigure | None] = {}
    for name, values in observed.items():
        interval = _interval(resampled[name], level)
        extreme = np.sum(np.abs(flipped[name]) >= abs(values[0]) - 1e-12)
        p_value = float((1 + extreme) / (1 + replicates))
        figures[name] = None if interval is None else PairedFigure(float(values[0]), interval, p_value)
    return figures


def _check(replicates: int, level: float) -> None:
    if replicates < 1 or not 0 < level < 1:
        raise ValueError(f"Need at least one replicate and a level between 0 and 1, got {replicates} and {level}.")


def _masks(counts: IntArray, thresholds: ShotThresholds | None) -> dict[str, BoolArray]:
    everyone = {"balanced_accuracy": np.ones(len(counts), dtype=bool)}
    return everyone | group_masks(counts, thresholds or ShotThresholds())


def _cells(labels: IntArray, right: list[BoolArray], num_classes: int) -> IntArray:
    """Number of images of each outcome and class: [2, C] for one checkpoint, [4, C] (row 2a + b) for two."""
    outcome = np.zeros(len(labels), dtype=np.int64)
    for answers in right:
        outcome = 2 * outcome + answers
    outcomes = 2 ** len(right)
    return np.bincount(outcome * num_classes + labels, minlength=outcomes * num_classes).reshape(outcomes, num_classes)


def _chunks(cells: IntArray, replicates: int) -> Iterator[int]:
    chunk = max(1, CELLS_AT_ONCE // cells.size)
    for start in range(0, replicates, chunk):
        yield min(chunk, replicates - start)


def _resample(cells: IntArray, replicates: int, seed: int) -> Iterator[IntArray]:
    """The same table after drawing all images again with replacement, [r, outcomes, C] a chunk."""
    rng = np.random.default_rng(seed)
    images = int(cells.sum())
    for chunk in _chunks(cells, replicates):
        yield rng.multinomial(images, cells.ravel() / images, size=chunk).reshape(chunk, *cells.shape)


def _sign_flips(cells: IntArray, replicates: int, seed: int) -> Iterator[IntArray]:
    """The same table after swapping the two answers to each image with probability 1/2."""
    rng = np.random.default_rng(seed + 1)
    split = cells[1] + cells[2]
    for chunk in _chunks(cells, replicates):
        drawn = np.repeat(cells[None], chunk, axis=0)
        drawn[:, 1] = rng.binomial(split, 0.5, size=(chunk, len(split)))
        drawn[:, 2] = split - drawn[:, 1]
        yield drawn


def _accuracies(correct: NDArray, images: IntArray, masks: dict[str, BoolArray]) -> dict[str, FloatArray]:
    """The five accuracies of tables [r, C] each, NaN where a replicate has no image of the group."""
    present = images > 0
    per_class = np.divide(correct, images, out=np.zeros(images.shape), where=present)
    figures = {"accuracy": correct.sum(axis=1) / images.sum(axis=1)}
    for name, mask in masks.items():
        number = present[:, mask].sum(axis=1)
        sums = per_class[:, mask].sum(axis=1)
        figures[name] = np.divide(sums, number, out=np.full(len(number), np.nan), where=number > 0)
    return figures


def _differences(cells: IntArray, masks: dict[str, BoolArray]) -> dict[str, FloatArray]:
    """Accuracies of the first minus those of the second, for tables [r, 4, C]."""
    return _accuracies(cells[:, 2] - cells[:, 1], cells.sum(axis=1), masks)


def _joined(parts: Iterator[dict[str, FloatArray]]) -> dict[str, FloatArray]:
    chunks = list(parts)
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def _interval(values: FloatArray, level: float) -> tuple[float, float] | None:
    values = values[~np.isnan(values)]
    if not values.size:
        return None
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
