"""The split under analysis: which of its samples are taken, and how many, medium and few shot are averaged."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..shots import ShotThresholds

ALL = "all"


@dataclass(frozen=True)
class LabelledSplit:
    """The split whose losses are analysed: its name, all its labels [N], and the *training* class counts [C]."""

    name: str
    labels: Tensor
    class_counts: Tensor
    is_training: bool = True

    def __post_init__(self) -> None:
        if self.class_counts.ndim != 1 or not bool((self.class_counts >= 0).all()) or self.class_counts.sum() < 1:
            raise ValueError(
                "Many-, medium- and few-shot classes need the class counts of the training set, one number for each "
                "class; pass class_counts (the checkpoint's config.json may hold them)."
            )
        if len(self.labels) == 0 or self.labels.min() < 0 or self.labels.max() >= len(self.class_counts):
            raise ValueError(
                f"The labels of split {self.name!r} do not lie in 0..{len(self.class_counts) - 1}: "
                "the class counts belong to another data set; pass those of this one."
            )


def choose_samples(
    labels: Tensor, class_counts: Tensor, limit: int, thresholds: ShotThresholds, seed: int = 0
) -> Tensor:
    """Indices of at most ``limit`` samples, sorted: shared equally among the shot groups, then among their classes.

    A plain random subset of a long-tailed set would hold next to no tail samples; `group_weights` undoes the
    unequal inclusion. The draw is a function of ``seed``.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    present = torch.bincount(labels, minlength=len(class_counts))
    masks = thresholds.masks(class_counts)
    per_group = _fill(torch.stack([present[mask].sum() for mask in masks.values()]), limit)
    per_class = torch.zeros_like(present)
    for mask, share in zip(masks.values(), per_group.tolist(), strict=True):
        classes = mask.nonzero().squeeze(1)
        classes = classes[torch.randperm(len(classes), generator=generator)]
        per_class[classes] = _fill(present[classes], share)
    shuffled = labels[order]
    chosen = [order[(shuffled == label).nonzero().squeeze(1)[:take]] for label, take in enumerate(per_class.tolist())]
    return torch.cat(chosen).sort().values


def group_weights(
    labels: Tensor, split_counts: Tensor, class_counts: Tensor, thresholds: ShotThresholds
) -> dict[str, Tensor]:
    """Sample weights [N], summing to 1 in each group, under which a weighted mean estimates the split's mean.

    A sample of class c stands for (split count of c) / (analysed samples of c) samples; groups are told apart by
    the *training* counts ``class_counts``. "all" gives each group its share of the split. A group without analysed
    samples is left out.
    """
    analysed = torch.bincount(labels, minlength=len(class_counts))
    stands_for = (split_counts.double() / analysed.clamp(min=1))[labels]
    weights: dict[str, Tensor] = {}
    shares: dict[str, float] = {}
    for name, mask in thresholds.masks(class_counts).items():
        inside = torch.where(mask[labels], stands_for, 0.0)
        if inside.sum() > 0:
            weights[name] = inside / inside.sum()
            shares[name] = float(split_counts[mask].sum())
    overall = torch.stack([weight * shares[name] for name, weight in weights.items()]).sum(0) / sum(shares.values())
    return {ALL: overall, **weights}


def require_groups(requested: tuple[str, ...], available: dict[str, Tensor], thresholds: ShotThresholds) -> None:
    """Refuse a requested group that has no class (or no analysed sample)."""
    for name in requested:
        if name not in available:
            raise ValueError(
                f"Group {name!r} has no class with samples under the thresholds {thresholds.describe()}; "
                "leave it out of --groups or change --many and --few."
            )


def _fill(available: Tensor, limit: int) -> Tensor:
    """Shares of ``limit`` that are as equal as ``available`` allows, [G]; the smallest bins are emptied first."""
    shares = torch.zeros_like(available)
    left = min(limit, int(available.sum()))
    order = available.argsort().tolist()
    for position, place in enumerate(order):
        shares[place] = min(int(available[place]), left // (len(order) - position))
        left -= int(shares[place])
    return shares
