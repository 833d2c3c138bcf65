"""What a run logs of its perturbations, gathered on the device so that no step waits for a number."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..shots import ShotThresholds

# Radii whose spread is below this share of the largest count as one.
EQUAL = 1e-4


class ScalarMeter:
    """Means of named scalars since the last report."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._count = 0

    def add(self, **values: Tensor) -> None:
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value.detach()
        self._count += 1

    def report(self, reduce: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Means over steps and processes; ``reduce`` sums a tensor over processes. Starts anew."""
        if not self._sums:
            return {}
        names = sorted(self._sums)
        stacked = torch.stack([*(self._sums[n].float() for n in names), self._sums[names[0]].new_tensor(self._count)])
        self._sums, self._count = {}, 0
        *totals, count = reduce(stacked).tolist()
        return {name: total / count for name, total in zip(names, totals, strict=True)}


class PerturbationMeter:
    """Per-class means of r_c = ‖ε_c‖/‖w‖ since the last report, over the batches in which a class occurs.

    Reported as ``radius_many``, ``radius_medium``, ``radius_few`` (means over classes), ``radius_few_over_many``,
    ``radius_rank_correlation`` (Spearman's, of r_c with n_c: "rarer class, larger radius" is a negative one) and
    ``radius_capped`` (share of class occurrences at the cap).
    """

    def __init__(self, class_counts: Tensor, shots: ShotThresholds) -> None:
        self._counts = class_counts
        self._masks = shots.masks(class_counts)
        self._totals = torch.zeros(3, class_counts.numel(), device=class_counts.device)

    def add(self, ratio: Tensor, present: Tensor, capped: Tensor) -> None:
        """r_c, whether the class is in the batch, and whether its r_c is at the cap; each [C]."""
        self._totals += torch.stack([ratio * present, present.to(ratio.dtype), (capped & present).to(ratio.dtype)])

    def report(self, reduce: Callable[[Tensor], Tensor]) -> dict[str, float]:
        total, seen, capped = reduce(self._totals)
        self._totals = torch.zeros_like(self._totals)
        known = seen > 0
        if not known.any():
            return {}
        mean = total / seen.clamp(min=1)
        logs = {
            f"radius_{name}": mean[mask & known].mean().item()
            for name, mask in self._masks.items()
            if (mask & known).any()
        }
        if logs.get("radius_many") and "radius_few" in logs:
            logs["radius_few_over_many"] = logs["radius_few"] / logs["radius_many"]
        # Equal radii differ by rounding, whose order says nothing.
        radii = mean[known]
        unequal = radii.max() - radii.min() > EQUAL * radii.max()
        correlation = rank_correlation(radii, self._counts[known].to(mean.dtype)) if unequal else None
        if correlation is not None:
            logs["radius_rank_correlation"] = correlation
        logs["radius_capped"] = (capped.sum() / seen.sum()).item()
        return logs


def rank_correlation(x: Tensor, y: Tensor) -> float | None:
    """Spearman's rank correlation of two vectors, ties sharing their mean rank; None where a vector is constant."""
    a, b = (_mean_ranks(v) - (v.numel() - 1) / 2 for v in (x, y))
    scale = (a.square().sum() * b.square().sum()).sqrt()
    return (a @ b / scale).item() if scale > 0 else None


def _mean_ranks(values: Tensor) -> Tensor:
    _, group, sizes = values.unique(return_inverse=True, return_counts=True)
    sizes = sizes.double()
    first = sizes.cumsum(0) - sizes
    return (first + (sizes - 1) / 2)[group]
