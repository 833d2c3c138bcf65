"""The Hessian's extreme eigenvalues and trace, and SAM's sharpness: how the loss bends and rises around the weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from .budget import AnalysisSettings, Sizes, required
from .objective import Objective
from .problem import AnalysedNetwork
from .saved_results import Keep, compute_anew

Matvec = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalue estimates (Ritz values), ascending, and how far each may be from an eigenvalue of the matrix."""

    values: Tensor
    residuals: Tensor

    def largest(self, number: int) -> list[float]:
        """The ``number`` largest values, descending."""
        return self.values.flip(0)[:number].tolist()

    def smallest(self, number: int) -> list[float]:
        """The ``number`` smallest values, ascending."""
        return self.values[:number].tolist()


def lanczos(matvec: Matvec, start: Tensor, steps: int) -> Spectrum:
    """Both ends of a symmetric matrix's spectrum by Lanczos' iteration with full reorthogonalisation.

    ``start`` [k] is a random vector; ``steps`` products are taken, fewer when an invariant subspace is found
    (then every value is an eigenvalue). Each Ritz value lies within its residual ‖Av − λv‖ = β |last component| of
    an eigenvalue. Memory: steps · k numbers.
    """
    basis = [start / start.norm()]
    diagonal, off = [], []
    for _ in tqdm(range(min(steps, start.numel())), desc="Lanczos", leave=False, disable=None):
        image = matvec(basis[-1])
        diagonal.append(float(image @ basis[-1]))
        known = torch.stack(basis)
        for _ in range(2):  # the second sweep removes what rounding left of the first
            image = image - (known @ image) @ known
        off.append(float(image.norm()))
        if off[-1] <= 1e-6 * max(abs(value) for value in (*diagonal, *off)) or off[-1] == 0:
            break
        basis.append(image / image.norm())
    size = len(diagonal)
    tridiagonal = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    between = torch.tensor(off[: size - 1], dtype=torch.float64)
    tridiagonal += torch.diag(between, 1) + torch.diag(between, -1)
    values, vectors = torch.linalg.eigh(tridiagonal)
    return Spectrum(values, off[-1] * vectors[-1].abs())


def hutchinson_trace(matvec: Matvec, like: Tensor, probes: int, seed: int = 0) -> tuple[float, float]:
    """Trace and its standard error, E[vᵀAv] over random signs v (Hutchinson 1990)."""
    if probes < 2:
        raise ValueError(f"The trace needs at least 2 probes for its standard error, got {probes}; raise --probes.")
    generator = torch.Generator().manual_seed(seed)
    values = []
    for _ in tqdm(range(probes), desc="Hutchinson", leave=False, disable=None):
        signs = (torch.randint(0, 2, (like.numel(),), generator=generator) * 2 - 1).to(like)
        values.append(float(signs @ matvec(signs)))
    estimates = torch.tensor(values, dtype=torch.float64)
    return float(estimates.mean()), float(estimates.std() / probes**0.5)


@dataclass(frozen=True)
class Curvature:
    """One group's Hessian: largest and smallest eigenvalues, their residuals, the trace and its standard error."""

    largest: list[float]
    smallest: list[float]
    largest_residual: float
    smallest_residual: float
    trace: float
    trace_error: float

    def describe(self) -> dict[str, list[float] | float]:
        return asdict(self)


def curvature(matvec: Matvec, like: Tensor, steps: int, probes: int, seed: int = 0, number: int = 3) -> Curvature:
    """`lanczos` and `hutchinson_trace` of one matrix; ``number`` eigenvalues from each end."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(like.numel(), generator=generator).to(like)
    spectrum = lanczos(matvec, start, steps)
    trace, error = hutchinson_trace(matvec, like, probes, seed + 1)
    return Curvature(
        largest=spectrum.largest(number),
        smallest=spectrum.smallest(number),
        largest_residual=float(spectrum.residuals[-1]),
        smallest_residual=float(spectrum.residuals[0]),
        trace=trace,
        trace_error=error,
    )


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
    sums = [(weights[some].double() * per_sample(some).double()).sum() for some in index.split(objective.batch_size)]
    return float(sum(sums))


def measure_curvature(
    network: AnalysedNetwork, settings: AnalysisSettings, sizes: Sizes, keep: Keep = compute_anew
) -> dict[str, Any]:
    """Hessian eigenvalues at both ends and trace for each group."""
    objective = network.objective(settings.curvature_scope)

    def spectrum(weights: Tensor) -> dict[str, Any]:
        matvec = partial(objective.hessian_vector, weights)
        steps, probes = required(sizes.steps), required(sizes.probes)
        return curvature(matvec, objective.start, steps, probes, settings.seed).describe()

    groups = {name: keep(name, partial(spectrum, weights)) for name, weights in objective.groups.items()}
    return {"groups": groups, "num_parameters": objective.num_parameters}


def measure_sam_sharpness(
    network: AnalysedNetwork, settings: AnalysisSettings, sizes: Sizes, keep: Keep = compute_anew
) -> dict[str, Any]:
    """SAM's sharpness of each group by one and by several ascent steps."""
    objective = network.objective(settings.curvature_scope)
    radius, steps = settings.sharpness_radius, required(sizes.ascent_steps)

    def rises(weights: Tensor) -> dict[str, float]:
        return {
            "one_step": sam_sharpness(objective, weights, radius, 1),
            "several_steps": sam_sharpness(objective, weights, radius, steps),
        }

    return {
        "radius": radius,
        "relative_radius": radius / objective.weight_norm,
        "groups": {name: keep(name, partial(rises, weights)) for name, weights in objective.groups.items()},
    }
