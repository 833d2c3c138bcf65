"""SAM's sharpness: how much the loss can rise within a ball around the weights."""

from __future__ import annotations

import torch
from torch import Tensor

from ccsam_hf.sharpness.objective import Objective


def sam_sharpness(objective: Objective, weights: Tensor, radius: float, steps: int = 5) -> float:
    """max over ‖ε‖ ≤ ρ of L(θ + ε) − L(θ), a lower estimate by ``steps`` projected ascent steps (Foret et al. 2021).

    The first step is SAM's own, ε = ρ ∇L/‖∇L‖; each later one adds ρ times the unit gradient at θ + ε and goes back
    to the ball. The largest loss met is kept, so that more steps never lower the estimate. A zero gradient at θ
    (nothing to climb) gives 0. ``radius`` is absolute.
    """
    if not radius > 0 or steps < 1:
        raise ValueError(f"Sharpness needs a positive radius and at least 1 step, got {radius} and {steps}.")
    base = _value(objective, weights, objective.start)
    epsilon = torch.zeros_like(objective.start)
    best = base
    for _ in range(steps):
        gradient = objective.gradient(weights, objective.start + epsilon)
        norm = gradient.norm()
        if not norm > 0:
            break
        epsilon = epsilon + radius * gradient / norm
        epsilon = epsilon * (radius / epsilon.norm()).clamp(max=1)
        best = max(best, _value(objective, weights, objective.start + epsilon))
    return best - base


@torch.no_grad()
def _value(objective: Objective, weights: Tensor, theta: Tensor) -> float:
    """Σ w_i l_i with the statistics that the gradient sees, over the group's own samples only."""
    index = weights.nonzero().squeeze(1)
    per_sample = objective.at(theta)
    pieces = [(weights[part].double() * per_sample(part).double()).sum() for part in index.split(objective.batch_size)]
    return float(sum(pieces))
