"""Each part of the analysis but those of `class_parts`: from a subject and sizes to plain numbers.

A part hands what takes long in it to ``keep``, piece by piece, so that it can go on after an interruption.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ccsam_hf.sharpness.curvature import curvature
from ccsam_hf.sharpness.groups import ALL
from ccsam_hf.sharpness.landscape import filter_normalised, grid_axis, landscape
from ccsam_hf.sharpness.noise import classifier_noise_losses, noise_losses, noise_ratios, worst_directions
from ccsam_hf.sharpness.objective import Objective, unit_directions
from ccsam_hf.sharpness.pieces import Keep, compute_anew, under
from ccsam_hf.sharpness.settings import AnalysisSettings, Sizes
from ccsam_hf.sharpness.sharpness import sam_sharpness
from ccsam_hf.sharpness.subject import Subject

# 25 levels in each of the two ranges and 5 directions: the features make more of them almost free.
CLASSIFIER_SIZES = {"levels": 25, "seeds": 5}


def noise_part(
    subject: Subject, scope: str, direction: str, settings: AnalysisSettings, sizes: Sizes, keep: Keep = compute_anew
) -> dict[str, Any]:
    """Loss against ‖ε‖/‖θ‖ for each group: {"ratios": {range: [R]}, "losses": {range: {group: [R][S]}}}."""
    objective = subject.objective(scope)
    largest = {"global": settings.noise_range, "local": settings.local_range}
    ratios = {name: noise_ratios(value, _required(sizes.levels)) for name, value in largest.items()}
    curves: dict[str, dict[str, Tensor]] = {}
    together = torch.cat(list(ratios.values()))
    if direction == "random":
        units = unit_directions(_required(sizes.seeds), objective.start, settings.seed)
        values = _curves(subject, scope, objective, together, units, keep)
    else:
        values = _worst_curves(subject, scope, objective, together, keep)
    for name, piece in zip(ratios, values.split([len(r) for r in ratios.values()]), strict=True):
        curves[name] = {group: piece[:, :, place] for place, group in enumerate(objective.groups)}
    return {
        "ratios": ratios,
        "losses": curves,
        "masked": int((~values.isfinite()).sum()),
        "weight_norm": objective.weight_norm,
        "num_parameters": objective.num_parameters,
    }


def _curves(subject: Subject, scope: str, objective: Objective, ratios: Tensor, units: Tensor, keep: Keep) -> Tensor:
    """[R, S, G] by whichever way is the cheaper."""
    layer = subject.linear if scope == "classifier" else None
    if layer is None:
        return noise_losses(objective, ratios, units, keep)
    labels = subject.labels.to(subject.device)
    return classifier_noise_losses(subject.features, labels, layer.weight, layer.bias, objective.groups, ratios, units)


def _worst_curves(subject: Subject, scope: str, objective: Objective, ratios: Tensor, keep: Keep) -> Tensor:
    """Each group along its own gradient, on its own samples, [R, 1, G]."""
    columns = []
    for (name, weights), unit in zip(objective.groups.items(), worst_directions(objective), strict=True):
        alone = replace(objective, groups={name: weights})
        columns.append(_curves(subject, scope, alone, ratios, unit[None], under(name, keep)))
    return torch.cat(columns, dim=2)


def landscape_groups(groups: Mapping[str, Tensor]) -> dict[str, str]:
    """Overall, head and tail: "all" and the most and least frequent of the shot groups that have samples."""
    shots = [name for name in groups if name != ALL]
    return {ALL: "overall", shots[0]: f"head ({shots[0]})", shots[-1]: f"tail ({shots[-1]})"}


def landscape_part(
    subject: Subject, settings: AnalysisSettings, sizes: Sizes, keep: Keep = compute_anew
) -> dict[str, Any]:
    """Losses on a plane of two filter-normalised random directions through the weights."""
    objective = subject.objective("all")
    axis = grid_axis(settings.grid_range, _required(sizes.grid))
    first, second = (filter_normalised(unit, objective) for unit in unit_directions(2, objective.start, settings.seed))
    surface = landscape(objective, first, second, axis, axis, keep)
    return {"axes": [axis, axis], **_surfaces(surface, objective)}


def path_part(
    subject: Subject,
    directions: Tensor,
    coordinates: Tensor,
    explained: float,
    sizes: Sizes,
    keep: Keep = compute_anew,
) -> dict[str, Any]:
    """Losses on the plane of a run's path, around its last point, wide enough to hold all of it."""
    objective = subject.objective("all")
    axes = []
    for column in coordinates.T:
        margin = max(0.15 * float(column.max() - column.min()), 0.05 * float(coordinates.abs().max()))
        axes.append(torch.linspace(float(column.min()) - margin, float(column.max()) + margin, _required(sizes.grid)))
    surface = landscape(objective, directions[0], directions[1], axes[0], axes[1], keep)
    return {"axes": axes, "path": coordinates, "explained": explained, **_surfaces(surface, objective)}


def _surfaces(surface: Tensor, objective: Objective) -> dict[str, Any]:
    wanted = landscape_groups(objective.groups)
    planes = {label: surface[:, :, list(objective.groups).index(name)] for name, label in wanted.items()}
    return {"losses": planes, "masked": int((~surface.isfinite()).sum())}


def curvature_part(
    subject: Subject, settings: AnalysisSettings, sizes: Sizes, keep: Keep = compute_anew
) -> dict[str, Any]:
    """Hessian eigenvalues at both ends and trace for each group."""
    objective = subject.objective(settings.curvature_scope)

    def spectrum(weights: Tensor) -> dict[str, Any]:
        matvec = partial(objective.hessian_vector, weights)
        steps, probes = _required(sizes.steps), _required(sizes.probes)
        return curvature(matvec, objective.start, steps, probes, settings.seed).describe()

    groups = {name: keep(name, partial(spectrum, weights)) for name, weights in objective.groups.items()}
    return {"groups": groups, "num_parameters": objective.num_parameters}


def sharpness_part(
    subject: Subject, settings: AnalysisSettings, sizes: Sizes, keep: Keep = compute_anew
) -> dict[str, Any]:
    """SAM's sharpness of each group by one and by several ascent steps."""
    objective = subject.objective(settings.curvature_scope)
    radius, steps = settings.sharpness_radius, _required(sizes.ascent_steps)

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


def _required(size: int | None) -> int:
    assert size is not None, "the plan completes every size"
    return size
