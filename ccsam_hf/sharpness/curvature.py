"""The Hessian's extreme eigenvalues and trace, from Hessian-vector products alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from tqdm.auto import tqdm

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
