"""Learning rate by epochs, as the long-tailed recipes write it."""

from __future__ import annotations

from collections.abc import Sequence


def milestone_factor(
    step: int, steps_per_epoch: float, warmup_steps: int, milestones: Sequence[float], decay: float
) -> float:
    """Factor of the base learning rate: linear warm-up to 1, then ``decay`` once for every milestone passed.

    ``milestones`` are epochs. The warm-up gives step s the factor (s + 1) / warmup_steps, so that the first step
    already learns.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    passed = sum(step >= round(epoch * steps_per_epoch) for epoch in milestones)
    return float(decay**passed)
