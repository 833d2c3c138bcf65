"""Samplers over the classes of a long-tailed set: which sample comes when, as a pure function of (seed, epoch).

A scheme gives class probabilities p_c; a sample is uniform within its class. An epoch draws as many samples as the
data set has. Every process computes the same order and takes its share of the batches from it, so several processes
and a resume see the order of one uninterrupted process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Sampler

from .draws import Draw


def power_probabilities(class_counts: np.ndarray, exponent: float) -> np.ndarray:
    """p_c = n_c^q / sum_k n_k^q, [C]: q = 1 instance-balanced, 1/2 square-root, 0 class-balanced.

    Classes without a sample keep probability 0 for every q. Kang et al. 2020, Eq. 1.
    """
    weights = np.where(class_counts > 0, class_counts.astype(np.float64) ** exponent, 0.0)
    return weights / weights.sum()


def progressive_probabilities(class_counts: np.ndarray, progress: float) -> np.ndarray:
    """p_c(t) = (1 - t/T) p_c^instance + (t/T) p_c^class with progress t/T in [0, 1]. Kang et al. 2020, Eq. 2."""
    instance, balanced = power_probabilities(class_counts, 1.0), power_probabilities(class_counts, 0.0)
    return (1.0 - progress) * instance + progress * balanced


def effective_number_probabilities(class_counts: np.ndarray, beta: float) -> np.ndarray:
    """p_c ~ n_c / E_c with E_c = (1 - beta^n_c) / (1 - beta): each sample weighs 1/E_c. Cui et al. 2019, Eq. 2.

    beta = 0 is instance-balanced, beta -> 1 class-balanced.
    """
    if not 0.0 <= beta < 1.0:
        raise ValueError(f"beta must lie in [0, 1), got {beta}")
    counts = class_counts.astype(np.float64)
    # 1 - beta^n by expm1, which keeps its digits for beta close to 1 and gives 1 for beta = 0.
    weights = counts / -np.expm1(np.maximum(counts, 1.0) * np.log(beta)) if beta > 0 else counts
    return weights / weights.sum()


@dataclass(frozen=True)
class Scheme:
    """One named choice: probabilities(class_counts, progress t/T, beta) and the options that it reads."""

    probabilities: Callable[[np.ndarray, float, float], np.ndarray]
    reads_epochs: bool = False
    reads_beta: bool = False


SAMPLING_SCHEMES: dict[str, Scheme] = {
    "instance": Scheme(lambda n, progress, beta: power_probabilities(n, 1.0)),
    "class": Scheme(lambda n, progress, beta: power_probabilities(n, 0.0)),
    "square_root": Scheme(lambda n, progress, beta: power_probabilities(n, 0.5)),
    "progressive": Scheme(lambda n, progress, beta: progressive_probabilities(n, progress), reads_epochs=True),
    "effective_number": Scheme(lambda n, progress, beta: effective_number_probabilities(n, beta), reads_beta=True),
}


def draw_positions(labels: np.ndarray, probabilities: np.ndarray, count: int, seed: int, epoch: int) -> np.ndarray:
    """`count` dataset positions, int64: a class by its probability, then a sample uniform within the class."""
    by_class = np.argsort(labels, kind="stable")
    counts = np.bincount(labels, minlength=len(probabilities))
    starts = np.cumsum(counts) - counts
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed % 2**64, epoch])))
    edges = np.cumsum(probabilities)
    # Dividing by the last edge makes it exactly 1, so that no draw falls beyond the last class.
    drawn = np.searchsorted(edges / edges[-1], generator.random(count), side="right")
    within = np.floor(generator.random(count) * counts[drawn]).astype(np.int64)
    return by_class[starts[drawn] + within]


class ClassSampler(Sampler[Draw]):
    """Yields one epoch of `Draw`s under a scheme of `SAMPLING_SCHEMES`; call `set_epoch` before each epoch.

    `"instance"` is every sample once, in the very order of the stock Trainer (randperm seeded with seed + epoch);
    the other schemes draw with replacement, len(labels) samples. `epochs` is the T of `"progressive"`, `beta` the
    one of `"effective_number"` (default 0.9999).
    """

    def __init__(
        self,
        labels: np.ndarray | torch.Tensor | Sequence[int],
        scheme: str = "instance",
        seed: int = 0,
        *,
        epochs: int | None = None,
        beta: float | None = None,
    ) -> None:
        if scheme not in SAMPLING_SCHEMES:
            raise ValueError(f"Unknown sampling scheme {scheme!r}: choose one of {', '.join(SAMPLING_SCHEMES)}")
        self.labels = np.asarray(labels, dtype=np.int64)
        if self.labels.ndim != 1 or len(self.labels) == 0:
            raise ValueError(f"labels must be a non-empty vector of classes, got shape {self.labels.shape}")
        if self.labels.min() < 0:
            raise ValueError(f"labels must not be negative, got {self.labels.min()} at {int(self.labels.argmin())}")
        _check_options(scheme, epochs, beta)
        self.scheme, self.seed, self.epochs, self.beta = scheme, seed, epochs, beta
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch (from 0) that the next iteration yields."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[Draw]:
        epoch = self.epoch
        for position, index in enumerate(self.order(epoch)):
            yield Draw(index, epoch, position)

    def order(self, epoch: int) -> np.ndarray:
        """Dataset positions of one epoch in order, int64 [len(self)]."""
        if self.scheme == "instance":
            generator = torch.Generator().manual_seed(self.seed + epoch)
            return torch.randperm(len(self), generator=generator).numpy()
        return draw_positions(self.labels, self.probabilities(epoch), len(self), self.seed, epoch)

    def probabilities(self, epoch: int) -> np.ndarray:
        """Class probabilities of one epoch, float64 [C]."""
        if self.epochs is not None and epoch >= self.epochs:
            raise ValueError(f"Epoch {epoch} lies beyond the {self.epochs} epochs given: raise `epochs`")
        progress = epoch / self.epochs if self.epochs else 0.0
        beta = 0.9999 if self.beta is None else self.beta
        return SAMPLING_SCHEMES[self.scheme].probabilities(np.bincount(self.labels), progress, beta)


def _check_options(scheme: str, epochs: int | None, beta: float | None) -> None:
    choice = SAMPLING_SCHEMES[scheme]
    if choice.reads_epochs and (epochs is None or epochs < 1):
        raise ValueError(f"Sampling scheme {scheme!r} needs `epochs`, the total number of epochs, got {epochs}")
    if epochs is not None and not choice.reads_epochs:
        raise ValueError(f"`epochs` has no effect on sampling scheme {scheme!r}: leave it out")
    if beta is not None and not choice.reads_beta:
        raise ValueError(f"`beta` has no effect on sampling scheme {scheme!r}: leave it out")
