"""Randomness that depends on nothing but (seed, epoch, position).

The loaders of torch prefetch and are split over workers and processes, so a global generator stands at another
place after a resume. Here every random number is a hash of a counter: the same draw gives the same crop in any
worker, any process and any order.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch

# SplitMix64 (Steele, Lea & Flood 2014): increment and the two multipliers of its finaliser.
_INCREMENT = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_SHIFTS = (np.uint64(30), np.uint64(27), np.uint64(31))


class Draw(int):
    """A dataset index that remembers when it was drawn: `epoch` and `position` in that epoch's order.

    Indexes lists, arrays, tensors and datasets like the plain integer. A plain integer means "no randomness".
    """

    epoch: int
    position: int

    def __new__(cls, index: int, epoch: int, position: int) -> Draw:
        draw = int.__new__(cls, index)
        draw.epoch = epoch
        draw.position = position
        return draw

    def __reduce__(self) -> tuple[type[Draw], tuple[int, int, int]]:
        return Draw, (int(self), self.epoch, self.position)

    def __repr__(self) -> str:
        return f"Draw({int(self)}, epoch={self.epoch}, position={self.position})"


class DrawKeys(NamedTuple):
    """Epochs and positions of a batch of draws, int64 [B] each."""

    epochs: np.ndarray
    positions: np.ndarray


def draw_keys(indices: Sequence[int]) -> DrawKeys | None:
    """Epochs and positions of a batch; None when it holds plain indices, ValueError when it holds both kinds."""
    draws = [index for index in indices if isinstance(index, Draw)]
    if not draws:
        return None
    if len(draws) != len(indices):
        raise ValueError("A batch mixes Draw and plain indices: take all of them from one of ccsam_hf's samplers")
    return DrawKeys(
        np.fromiter((draw.epoch for draw in draws), np.int64, len(draws)),
        np.fromiter((draw.position for draw in draws), np.int64, len(draws)),
    )


def _mixed(state: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser on uint64 of any shape: each output bit depends on each input bit."""
    state = state + _INCREMENT
    for shift, multiplier in zip(_SHIFTS, _MULTIPLIERS, strict=False):
        state = (state ^ (state >> shift)) * multiplier
    return state ^ (state >> _SHIFTS[-1])


def random_bits(
    seed: int, epoch: int | np.ndarray, position: int | np.ndarray, stream: int = 0, count: int = 1
) -> np.ndarray:
    """Independent uint64 [..., count] for each (epoch, position), whose shapes broadcast.

    `stream` keeps the uses apart (crop, flip, policy): equal arguments always give equal bits.
    """
    with np.errstate(over="ignore"):  # wrapping around at 2^64 is the point
        state = np.zeros((), np.uint64)
        for word in (seed, stream, epoch, position):
            state = _mixed(state ^ np.asarray(word, np.int64).astype(np.uint64))
        return _mixed(state[..., None] ^ _mixed(np.arange(count, dtype=np.uint64)))


def uniform(
    seed: int, epoch: int | np.ndarray, position: int | np.ndarray, stream: int = 0, count: int = 1
) -> np.ndarray:
    """float64 [..., count] in [0, 1), a pure function of its arguments (see `random_bits`)."""
    return (random_bits(seed, epoch, position, stream, count) >> np.uint64(11)) * 2.0**-53


def integers(
    high: int | np.ndarray,
    seed: int,
    epoch: int | np.ndarray,
    position: int | np.ndarray,
    stream: int = 0,
    count: int = 1,
) -> np.ndarray:
    """int64 [..., count] uniform in 0..high-1, a pure function of its arguments (see `random_bits`)."""
    return np.floor(uniform(seed, epoch, position, stream, count) * high).astype(np.int64)


@contextmanager
def seeded(seed: int, epoch: int, position: int) -> Iterator[None]:
    """Run code that uses the global generators (timm, torchvision) as a function of (seed, epoch, position).

    Sets `random`, `numpy.random` and torch's CPU generator, and puts all three back afterwards. CUDA generators
    are left alone: image transforms run on the CPU.
    """
    python_state, numpy_state, torch_state = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    bits = [int(word) for word in random_bits(seed, epoch, position, stream=0x5EED, count=3)]
    try:
        random.seed(bits[0])
        np.random.seed(bits[1] % 2**32)  # noqa: NPY002
        torch.default_generator.manual_seed(bits[2] % 2**63)
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002
        torch.set_rng_state(torch_state)
