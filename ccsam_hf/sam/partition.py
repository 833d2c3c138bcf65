"""Which samples of a batch share a perturbation."""

from __future__ import annotations

import math
from collections.abc import Callable
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


@dataclass(frozen=True)
class Partition:
    """How a batch is divided among perturbations, by name.

    * ``batch``: one group, SAM;
    * ``class``: one group per class, CC-SAM;
    * ``head_tail``: classes with more than ``head_threshold`` training samples stay unperturbed, the others share one
      perturbation, ImbSAM; ``tail_weight`` multiplies the loss of the others in both passes;
    * ``quantiles``: ``groups`` groups of classes, sorted by frequency and as equal in number as they can be;
    * ``random``: the class partition with the samples of each batch dealt out anew, so that the groups have the
      classes' sizes and counts but nothing in common. The control of any claim about classes, since smaller groups
      alone act as m-sharpness.
    """

    kind: str = "class"
    groups: int = 0
    head_threshold: int | None = None
    tail_weight: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in PARTITIONS:
            raise ValueError(f"partition={self.kind!r} is not known; choose one of {', '.join(PARTITIONS)}.")
        if self.groups < 0 or (self.groups > 0) != (self.kind == "quantiles"):
            raise ValueError(
                f"partition_groups={self.groups} with partition={self.kind!r}: partition='quantiles' needs at least 1, "
                "every other partition none."
            )
        if (self.head_threshold is not None) != (self.kind == "head_tail"):
            raise ValueError(
                f"head_threshold={self.head_threshold} with partition={self.kind!r}: partition='head_tail' needs one, "
                "every other partition none."
            )
        if not 0 < self.tail_weight < math.inf:
            raise ValueError(f"tail_weight must be a finite number above 0, got {self.tail_weight}.")
        if self.tail_weight != 1 and self.kind != "head_tail":
            raise ValueError(
                f"tail_weight={self.tail_weight:g} with partition={self.kind!r}: no effect; only partition='head_tail' "
                "has a tail."
            )

    def check(self, class_counts: Tensor) -> None:
        """Refuse what these class counts [C] cannot give."""
        if self.groups > class_counts.numel():
            raise ValueError(
                f"partition_groups={self.groups} is more than the {class_counts.numel()} classes; lower it."
            )
        if self.head_threshold is not None and not (class_counts <= self.head_threshold).any():
            raise ValueError(
                f"head_threshold={self.head_threshold}: every class has more training samples (the rarest "
                f"{int(class_counts.min())}), so that nothing would be perturbed; raise it."
            )

    def __call__(self, labels: Tensor, class_counts: Tensor, generator: torch.Generator | None = None) -> Groups:
        """The groups of a batch with dominant labels [B]; ``generator`` (on the CPU) deals out ``random`` ones."""
        return PARTITIONS[self.kind](self, labels, class_counts, generator)


Maker = Callable[[Partition, Tensor, Tensor, torch.Generator | None], Groups]


def grouped_classes(labels: Tensor, class_counts: Tensor, group_of_class: Tensor, number: int) -> Groups:
    """Groups of whole classes, ``group_of_class`` [C]; a group's count is the sum of its classes' counts."""
    counts = torch.zeros(number, dtype=class_counts.dtype, device=class_counts.device)
    counts = counts.index_add(0, group_of_class, class_counts)
    return Groups(group_of_class[labels], counts, torch.ones_like(counts, dtype=torch.bool))


def _batch(choice: Partition, labels: Tensor, class_counts: Tensor, generator: torch.Generator | None) -> Groups:
    return grouped_classes(labels, class_counts, torch.zeros_like(class_counts), 1)


def _head_tail(choice: Partition, labels: Tensor, class_counts: Tensor, generator: torch.Generator | None) -> Groups:
    assert choice.head_threshold is not None
    tail = (class_counts <= choice.head_threshold).long()
    groups = grouped_classes(labels, class_counts, tail, 2)
    return Groups(groups.index, groups.counts, torch.tensor([False, True], device=labels.device))


def _quantiles(choice: Partition, labels: Tensor, class_counts: Tensor, generator: torch.Generator | None) -> Groups:
    rank = class_counts.argsort(descending=True, stable=True).argsort()
    return grouped_classes(labels, class_counts, rank * choice.groups // class_counts.numel(), choice.groups)


def _random(choice: Partition, labels: Tensor, class_counts: Tensor, generator: torch.Generator | None) -> Groups:
    dealt = torch.randperm(len(labels), generator=generator).to(labels.device)
    return class_groups(labels[dealt], class_counts)


PARTITIONS: dict[str, Maker] = {
    "batch": _batch,
    "class": lambda choice, labels, class_counts, generator: class_groups(labels, class_counts),
    "head_tail": _head_tail,
    "quantiles": _quantiles,
    "random": _random,
}
