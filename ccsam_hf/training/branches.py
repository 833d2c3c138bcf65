"""ResLT's objective: three residual branches, each for fewer and rarer classes, and their sum."""

from __future__ import annotations

import torch
from torch import Tensor

from ..models.heads import ResidualBranches
from ..shots import ShotThresholds
from .sample_loss import SampleLoss

DEFAULT_BRANCH_WEIGHT = 0.5


def branch_classes(class_counts: Tensor, shots: ShotThresholds) -> Tensor:
    """Which classes [C] train which branch, bool [3, C]: all; medium- and few-shot; few-shot."""
    masks = shots.masks(class_counts)
    return torch.stack([torch.ones_like(masks["few"]), masks["medium"] | masks["few"], masks["few"]])


def branch_loss(losses: Tensor, members: Tensor) -> Tensor:
    """Mean of the losses [3, B] of the branches over all places where the sample trains the branch, bool [3, B]."""
    return (losses * members).sum() / members.sum()


def residual_objective(
    head: ResidualBranches, features: Tensor, logits: Tensor, loss: SampleLoss, classes: Tensor, weight: float
) -> Tensor:
    """(1 − β) · loss of the sum of the branches + β · `branch_loss`, β = ``weight``.

    J. Cui et al., ResLT, TPAMI 2022. The release groups CIFAR's classes by their rank (from 35 and 70 of 100, from 2
    and 4 of 10), here they are the shot groups; β is tuned there for each data set, and 0.5 here is nobody's value.

    features [B, D], logits [B, C], classes: from `branch_classes`.
    """
    branches = head.branch_logits(features).float()
    losses = torch.stack([loss(part) for part in branches])
    return (1 - weight) * loss.mean(logits) + weight * branch_loss(losses, classes[:, loss.target.dominant])
