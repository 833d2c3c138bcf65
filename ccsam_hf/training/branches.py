"""ResLT's objective: three residual branches, each for fewer and rarer classes, and their sum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..losses import Target
from ..shots import ShotThresholds


def branch_members(class_counts: Tensor, shots: ShotThresholds) -> Tensor:
    """Which classes train which branch, bool [3, C]: all; medium- and few-shot; few-shot.

    The release groups CIFAR's classes by rank (from 35 and 70 of 100, from 2 and 4 of 10); here by the shot groups.
    """
    masks = shots.masks(class_counts)
    return torch.stack([torch.ones_like(masks["few"]), masks["medium"] | masks["few"], masks["few"]])


@dataclass(frozen=True)
class BranchLoss:
    """β I + (1 − β) F as a correction of F, the loss of the branches' sum (J. Cui et al., ResLT, TPAMI 2022).

    I is the mean over all pairs of a branch and a sample whose class trains it. ``logits`` [3, B, C] of the branches,
    ``members`` bool [3, C] as `branch_members` gives them, ``weight`` β in 0..1.
    """

    logits: Tensor
    members: Tensor
    weight: float

    def correction(self, loss: Callable[[Tensor], Tensor], target: Target, fused: Tensor) -> Tensor:
        """β (I − F), to be added to the reduced loss F = ``fused``; ``loss`` maps logits [B, C] to losses [B]."""
        losses = torch.stack([loss(branch) for branch in self.logits])
        trains = self.members[:, target.dominant].to(losses.dtype)
        return self.weight * ((losses * trains).sum() / trains.sum() - fused)
