"""Loss surfaces over a plane of the weight space."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor

from .budget import AnalysisSettings, Sizes, required
from .objective import Objective, flatten, losses_at, unflatten, unit_directions
from .problem import AnalysedNetwork
from .saved_results import Keep, compute_anew
from .shot_samples import ALL


def filter_normalised(direction: Tensor, objective: Objective) -> Tensor:
    """Scale each filter d_j of a direction [k] to the norm of the network's: d_j ‖w_j‖/‖d_j‖ (Li et al. 2018).

    A filter is one slice of a weight along its output axis. Biases and the scales and shifts of normalisation
    layers (one-dimensional parameters) are not moved, as in Li et al., so that networks are compared free of their
    scale invariance.
    """
    weights = unflatten(objective.start, objective.shapes)
    scaled = {}
    for name, tensor in unflatten(direction, objective.shapes).items():
        if tensor.ndim < 2:
            scaled[name] = torch.zeros_like(tensor)
            continue
        filters, reference = tensor.flatten(1), weights[name].flatten(1)
        norms = filters.norm(dim=1, keepdim=True).clamp(min=torch.finfo(tensor.dtype).tiny)
        scaled[name] = (filters * reference.norm(dim=1, keepdim=True) / norms).view_as(tensor)
    return flatten(scaled)


def grid_axis(half_width: float, points: int) -> Tensor:
    """``points`` coordinates over -half_width..half_width, [P]; an odd number puts one on the network itself."""
    if not half_width > 0 or points < 3 or points % 2 == 0:
        raise ValueError(
            f"A landscape of {points} points over ±{half_width} has no centre; give --grid an odd number of at least 3 "
            "and --grid_range a positive half width."
        )
    return torch.linspace(-half_width, half_width, points, dtype=torch.float64)


def landscape(
    objective: Objective,
    first: Tensor,
    second: Tensor,
    along_first: Tensor,
    along_second: Tensor,
    keep: Keep = compute_anew,
) -> Tensor:
    """Group losses at θ + a·first + b·second, [A, B, G], in float64; overflow stays inf or NaN.

    All groups of a point come from one pass over the samples.
    """

    def theta(a: float, b: float) -> Tensor:
        return objective.start + a * first + b * second

    grid = product(along_first.tolist(), along_second.tolist())
    points = [(f"point {place}", partial(theta, a, b)) for place, (a, b) in enumerate(grid)]
    return losses_at(objective, points, keep, "landscape points").view(len(along_first), len(along_second), -1)


def trajectory_plane(points: Tensor) -> tuple[Tensor, Tensor, float]:
    """The plane that holds most of an optimisation path θ_1..θ_T, [T, k], seen from its last point.

    Returns orthonormal directions [2, k], the path's coordinates [T, 2] and the explained share of Σ_t ‖θ_t − θ_T‖².
    Random directions are nearly orthogonal to any path and would shrink it to a point (Li et al. 2018, section 7),
    hence the two leading principal directions. Needs at least 3 checkpoints.
    """
    if len(points) < 3:
        raise ValueError(f"An optimisation path needs at least 3 checkpoints, got {len(points)}; save more often.")
    offsets = (points - points[-1]).double()
    values, vectors = torch.linalg.eigh(offsets @ offsets.T)
    if values[-1] <= 0:
        raise ValueError("All checkpoints of the path hold the same weights; give checkpoints of different steps.")
    basis = vectors[:, -2:].flip(1).T @ offsets
    # A straight path leaves the second direction undefined: it stays 0 and the surface is constant along it.
    floor = values[-1].sqrt() * torch.finfo(points.dtype).eps
    norms = basis.norm(dim=1, keepdim=True)
    basis = torch.where(norms > floor, basis / norms, torch.zeros_like(basis))
    explained = float(values[-2:].clamp(min=0).sum() / values.sum())
    return basis.to(points), offsets @ basis.T, explained


def landscape_groups(groups: Mapping[str, Tensor]) -> dict[str, str]:
    """Overall, head and tail: "all" and the most and least frequent of the shot groups that have samples."""
    shots = [name for name in groups if name != ALL]
    return {ALL: "overall", shots[0]: f"head ({shots[0]})", shots[-1]: f"tail ({shots[-1]})"}


def measure_landscape(
    network: AnalysedNetwork, settings: AnalysisSettings, sizes: Sizes, keep: Keep = compute_anew
) -> dict[str, Any]:
    """Losses on a plane of two filter-normalised random directions through the weights."""
    objective = network.objective("all")
    axis = grid_axis(settings.grid_range, required(sizes.grid))
    first, second = (filter_normalised(unit, objective) for unit in unit_directions(2, objective.start, settings.seed))
    surface = landscape(objective, first, second, axis, axis, keep)
    return {"axes": [axis, axis], **_surfaces(surface, objective)}


def measure_path(
    network: AnalysedNetwork,
    directions: Tensor,
    coordinates: Tensor,
    explained: float,
    sizes: Sizes,
    keep: Keep = compute_anew,
) -> dict[str, Any]:
    """Losses on the plane of a run's path, around its last point, wide enough to hold all of it."""
    objective = network.objective("all")
    axes = []
    for column in coordinates.T:
        margin = max(0.15 * float(column.max() - column.min()), 0.05 * float(coordinates.abs().max()))
        axes.append(torch.linspace(float(column.min()) - margin, float(column.max()) + margin, required(sizes.grid)))
    surface = landscape(objective, directions[0], directions[1], axes[0], axes[1], keep)
    return {"axes": axes, "path": coordinates, "explained": explained, **_surfaces(surface, objective)}


def _surfaces(surface: Tensor, objective: Objective) -> dict[str, Any]:
    wanted = landscape_groups(objective.groups)
    planes = {label: surface[:, :, list(objective.groups).index(name)] for name, label in wanted.items()}
    return {"losses": planes, "masked": int((~surface.isfinite()).sum())}
