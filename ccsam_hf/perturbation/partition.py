"""Which samples of a batch share a perturbation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Groups:
    """A batch of B samples divided among G groups, each with its own perturbation.

    ``index`` [B] holds the group of each sample (int64, 0..G-1), ``counts`` [G] the number of *training* samples
    of each group (the n of Eq. 8) and ``active`` [G] whether a group is perturbed at all. G is fixed for a run, so
    that nothing here depends on which groups a batch happens to contain.
    """

    index: Tensor
    counts: Tensor
    active: Tensor

    @property
    def number(self) -> int:
        return self.counts.numel()

    def sizes(self) -> Tensor:
        """Samples of each group in the batch, [G] int64."""
        return torch.zeros_like(self.counts).index_add_(0, self.index, torch.ones_like(self.index))

    def present(self) -> Tensor:
        """Groups with at least one sample in the batch, [G] bool."""
        return self.sizes() > 0


def class_groups(labels: Tensor, class_counts: Tensor) -> Groups:
    """One group per class (CC-SAM): a sample's group is its label [B]; ``class_counts`` [C] are training counts."""
    return Groups(labels, class_counts, torch.ones_like(class_counts, dtype=torch.bool))
