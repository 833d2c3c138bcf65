"""The order of a batch in which samples that share a perturbation lie together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from .partition import Groups


@dataclass(frozen=True)
class Segment:
    """Consecutive samples of consecutive groups that all have ``size`` samples: one batched product serves them."""

    samples: slice
    groups: slice
    size: int

    @property
    def number(self) -> int:
        """Groups in the segment."""
        return self.groups.stop - self.groups.start


@dataclass(frozen=True)
class GroupLayout:
    """A batch of B samples sorted by the size of their group, then by group.

    ``order`` [B] sorts the batch (``sorted_batch``), ``present`` [P] are the groups in their new order, ``member`` [B]
    the position in ``present`` of each sorted sample's group, ``sizes`` [P] the samples of each, ``active`` [G] the
    groups that are perturbed at all. ``segments`` cover the sorted batch: groups of equal size are neighbours, so that
    no product needs padding, and a batch of B samples has at most √(2B) sizes.
    """

    order: Tensor
    present: Tensor
    member: Tensor
    sizes: Tensor
    segments: tuple[Segment, ...]
    active: Tensor

    @classmethod
    def of(cls, groups: Groups, max_copies: int | None = None) -> GroupLayout:
        """The layout of a batch's groups; no segment holds more than ``max_copies`` groups.

        Reads the sizes of the groups on the host: they decide the shapes of everything that follows.
        """
        if max_copies is not None and max_copies < 1:
            raise ValueError(f"max_copies must be at least 1 or None, got {max_copies}.")
        sizes = groups.sizes()
        present = sizes.nonzero().squeeze(1)
        present = present[sizes[present].argsort(stable=True)]
        rank = torch.empty_like(sizes).scatter_(0, present, torch.arange(len(present), device=present.device))
        member = rank[groups.index]
        order = member.argsort(stable=True)
        segments = _segments(sizes[present].tolist(), max_copies)
        return cls(order, present, member[order], sizes[present], segments, groups.active)

    @classmethod
    def one_by_one(cls, groups: Groups, absent_too: bool = False) -> GroupLayout:
        """The perturbed groups in the order of their numbers, each a segment, for passes of the whole batch.

        ``absent_too`` keeps groups without a sample here: under data parallelism every process runs the same ones.
        """
        sizes = groups.sizes()
        wanted = groups.active if absent_too else groups.active & (sizes > 0)
        present = wanted.nonzero().squeeze(1)
        segments = tuple(Segment(slice(0, 0), slice(k, k + 1), n) for k, n in enumerate(sizes[present].tolist()))
        order = torch.arange(len(groups.index), device=groups.index.device)
        rank = torch.zeros_like(sizes).scatter_(0, present, torch.arange(len(present), device=present.device))
        return cls(order, present, rank[groups.index], sizes[present], segments, groups.active)

    @property
    def batch_size(self) -> int:
        return self.order.numel()

    def spread(self, per_group: Tensor) -> Tensor:
        """Values of the present groups [P, ...] on all groups [G, ...], 0 for groups that are absent."""
        full = per_group.new_zeros(len(self.active), *per_group.shape[1:])
        return full.index_copy(0, self.present, per_group)

    def of_present(self, lengths: Tensor) -> Tensor:
        """Lengths of all groups [G] for the present ones [P], 0 for groups that are not perturbed."""
        return torch.where(self.active, lengths, 0)[self.present]

    def sorted_batch(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The inputs with every tensor of leading dimension B in the layout's order; the rest as it is."""
        return {name: self._sorted(value) for name, value in inputs.items()}

    def _sorted(self, value: Any) -> Any:
        if isinstance(value, Tensor) and value.dim() > 0 and len(value) == self.batch_size:
            return value[self.order.to(value.device)]
        return value


def _segments(sizes: list[int], max_copies: int | None) -> tuple[Segment, ...]:
    """Runs of equal sizes, cut to at most ``max_copies`` groups."""
    segments, sample, group = [], 0, 0
    for size, run in groupby(sizes):
        remaining = len(list(run))
        while remaining:
            take = remaining if max_copies is None else min(remaining, max_copies)
            segments.append(Segment(slice(sample, sample + take * size), slice(group, group + take), size))
            sample, group, remaining = sample + take * size, group + take, remaining - take
    return tuple(segments)
