"""Each part of the analysis: from a subject and sizes to plain numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ccsam_hf.analysis.bounds import certified_bound, printed_bound
from ccsam_hf.analysis.curvature import curvature
from ccsam_hf.analysis.groups import ALL
from ccsam_hf.analysis.landscape import filter_normalised, grid_axis, landscape
from ccsam_hf.analysis.noise import classifier_noise_losses, noise_losses, noise_ratios, worst_directions
from ccsam_hf.analysis.objective import Objective, unit_directions
from ccsam_hf.analysis.radii import (
    Loss,
    class_gradient_norms,
    few_over_many,
    linear_class_gradient_norms,
    rank_correlation,
)
from ccsam_hf.analysis.settings import AnalysisSettings, Sizes
from ccsam_hf.analysis.sharpness import sam_sharpness
from ccsam_hf.analysis.subject import Subject, cross_entropy, wrong_probability
from ccsam_hf.perturbation.radius import characteristic_radius

# 25 levels in each of the two ranges and 5 directions: the features make more of them almost free.
CLASSIFIER_SIZES = {"levels": 25, "seeds": 5}
# Gaussian draws for the averaged empirical risk of the certified bound, and its widths as ratios √k ρ/‖w‖.
BOUND_DRAWS, BOUND_RATIOS = 100, (0.1, 0.3, 1.0, 3.0, 10.0)


def noise_part(subject: Subject, scope: str, direction: str, settings: AnalysisSettings, sizes: Sizes) -> dict:
    """Loss against ‖ε‖/‖θ‖ for each group: {"ratios": {range: [R]}, "losses": {range: {group: [R][S]}}}."""
    objective = subject.objective(scope)
    largest = {"global": settings.noise_range, "local": settings.local_range}
    ratios = {name: noise_ratios(value, _required(sizes.levels)) for name, value in largest.items()}
    curves: dict[str, dict[str, Tensor]] = {}
    together = torch.cat(list(ratios.values()))
    if direction == "random":
        units = unit_directions(_required(sizes.seeds), objective.start, settings.seed)
        values = _curves(subject, scope, objective, together, units)
    else:
        values = _worst_curves(subject, scope, objective, together)
    for name, piece in zip(ratios, values.split([len(r) for r in ratios.values()]), strict=True):
        curves[name] = {group: piece[:, :, place] for place, group in enumerate(objective.groups)}
    return {
        "ratios": ratios,
        "losses": curves,
        "masked": int((~values.isfinite()).sum()),
        "weight_norm": objective.weight_norm,
        "num_parameters": objective.num_parameters,
    }


def _curves(subject: Subject, scope: str, objective: Objective, ratios: Tensor, units: Tensor) -> Tensor:
    """[R, S, G] by whichever way is the cheaper."""
    layer = subject.linear if scope == "classifier" else None
    if layer is None:
        return noise_losses(objective, ratios, units)
    labels = subject.labels.to(subject.device)
    return classifier_noise_losses(subject.features, labels, layer.weight, layer.bias, objective.groups, ratios, units)


def _worst_curves(subject: Subject, scope: str, objective: Objective, ratios: Tensor) -> Tensor:
    """Each group along its own gradient, on its own samples, [R, 1, G]."""
    columns = []
    for (name, weights), unit in zip(objective.groups.items(), worst_directions(objective), strict=True):
        alone = replace(objective, groups={name: weights})
        columns.append(_curves(subject, scope, alone, ratios, unit[None]))
    return torch.cat(columns, dim=2)


def landscape_groups(groups: Mapping[str, Tensor]) -> dict[str, str]:
    """Overall, head and tail: "all" and the most and least frequent of the shot groups that have samples."""
    shots = [name for name in groups if name != ALL]
    return {ALL: "overall", shots[0]: f"head ({shots[0]})", shots[-1]: f"tail ({shots[-1]})"}


def landscape_part(subject: Subject, settings: AnalysisSettings, sizes: Sizes) -> dict[str, Any]:
    """Losses on a plane of two filter-normalised random directions through the weights."""
    objective = subject.objective("all")
    axis = grid_axis(settings.grid_range, _required(sizes.grid))
    first, second = (filter_normalised(unit, objective) for unit in unit_directions(2, objective.start, settings.seed))
    surface = landscape(objective, first, second, axis, axis)
    return {"axes": [axis, axis], **_surfaces(surface, objective)}


def path_part(subject: Subject, directions: Tensor, coordinates: Tensor, explained: float, sizes: Sizes) -> dict:
    """Losses on the plane of a run's path, around its last point, wide enough to hold all of it."""
    objective = subject.objective("all")
    axes = []
    for column in coordinates.T:
        margin = max(0.15 * float(column.max() - column.min()), 0.05 * float(coordinates.abs().max()))
        axes.append(torch.linspace(float(column.min()) - margin, float(column.max()) + margin, _required(sizes.grid)))
    surface = landscape(objective, directions[0], directions[1], axes[0], axes[1])
    return {"axes": axes, "path": coordinates, "explained": explained, **_surfaces(surface, objective)}


def _surfaces(surface: Tensor, objective: Objective) -> dict[str, Any]:
    wanted = landscape_groups(objective.groups)
    planes = {label: surface[:, :, list(objective.groups).index(name)] for name, label in wanted.items()}
    return {"losses": planes, "masked": int((~surface.isfinite()).sum())}


def radii_part(subject: Subject, settings: AnalysisSettings, class_counts: Tensor) -> dict[str, Any]:
    """Class gradient norms, ρ_c (Eq. 8) and ‖ε_c‖/‖w‖ = √k ρ_c/‖w‖ (Eq. 9), for the classes with samples."""
    objective = subject.objective(settings.radius_scope)
    losses, norms = _class_gradients(subject, objective, settings, cross_entropy, len(class_counts))
    radii = characteristic_radius(objective.weight_norm, norms, objective.num_parameters, class_counts.double())
    relative = objective.num_parameters**0.5 * radii / objective.weight_norm
    masks = settings.thresholds.masks(class_counts)
    known = relative.isfinite()
    return {
        "class_counts": class_counts,
        "loss": losses,
        "gradient_norm": norms,
        "radius": radii,
        "relative_radius": relative,
        "weight_norm": objective.weight_norm,
        "num_parameters": objective.num_parameters,
        "few_over_many": few_over_many(relative, masks),
        "rank_correlation": rank_correlation(relative[known], class_counts[known].double()),
        "gradient_few_over_many": few_over_many(norms, masks),
        "gradient_rank_correlation": rank_correlation(norms[known], class_counts[known].double()),
        "zero_gradients": int((norms == 0).sum()),
    }


def _class_gradients(
    subject: Subject, objective: Objective, settings: AnalysisSettings, loss: Loss, num_classes: int
) -> tuple[Tensor, Tensor]:
    """Mean losses and gradient norms of the classes by whichever way is the cheaper."""
    layer = subject.linear if settings.radius_scope == "classifier" else None
    if layer is None:
        return class_gradient_norms(objective, subject.labels, num_classes)
    labels = subject.labels.to(subject.device)
    return linear_class_gradient_norms(subject.features, labels, layer.weight, layer.bias, loss, num_classes)


def bound_part(subject: Subject, settings: AnalysisSettings, class_counts: Tensor) -> dict[str, Any]:
    """The bound as printed, per class (Eq. 7) and overall (Eq. 5), and the certified bound, with 1 − p(label)."""
    objective = subject.objective(settings.radius_scope, wrong_probability)
    losses, norms = _class_gradients(subject, objective, settings, wrong_probability, len(class_counts))
    known = losses.isfinite() & (class_counts > 0)
    weights = objective.groups[ALL]
    overall_loss = objective.group_losses(objective.start)[list(objective.groups).index(ALL)].cpu()
    overall_norm = objective.gradient(weights).double().norm().cpu()
    bound = printed_bound(
        torch.cat([overall_loss[None], losses[known]]).clamp(0, 1),
        torch.cat([overall_norm[None], norms[known]]),
        objective.weight_norm,
        objective.num_parameters,
        torch.cat([class_counts.sum()[None], class_counts[known]]),
        settings.delta,
    )
    fields = ("value", "radius", "relative_radius", "complexity", "needed_ratio")
    rows = {name: getattr(bound, name) for name in fields}
    return {
        "classes": known.nonzero().squeeze(1),
        "class_counts": class_counts[known],
        "loss": losses[known],
        "gradient_norm": norms[known],
        "overall": {
            "loss": float(overall_loss),
            "gradient_norm": float(overall_norm),
            **{name: float(row[0]) for name, row in rows.items()},
        },
        "per_class": {name: row[1:] for name, row in rows.items()},
        "class_mean": float(bound.value[1:].mean()),
        "certified": _certified(subject, objective, settings, class_counts),
        "weight_norm": objective.weight_norm,
        "num_parameters": objective.num_parameters,
        "delta": settings.delta,
    }


def _certified(subject: Subject, objective: Objective, settings: AnalysisSettings, class_counts: Tensor) -> dict:
    """The corollary's bound overall, on the widths of `BOUND_RATIOS`; only where all samples of the split are at hand.

    It speaks of the mean over *all* n samples, of which a subset is not the sample that was trained on.
    """
    if not torch.equal(torch.bincount(subject.labels.cpu(), minlength=len(class_counts)), class_counts):
        return {"reason": "needs every training sample; raise --samples to the size of the training set"}
    if settings.radius_scope != "classifier":
        return {"reason": "computed for --radius_scope classifier only: each draw of other weights costs a pass"}
    widths = torch.tensor(BOUND_RATIOS, dtype=torch.float64) * objective.weight_norm / objective.num_parameters**0.5
    everything = replace(objective, groups={ALL: objective.groups[ALL]})
    generator = torch.Generator().manual_seed(settings.seed + 1)
    draws = torch.randn(BOUND_DRAWS, objective.num_parameters, generator=generator).to(objective.start)
    means = []
    for width in tqdm(widths.tolist(), desc="Gaussian averages", leave=False, disable=None):
        means.append(torch.stack([everything.group_losses(objective.start + width * draw) for draw in draws]).mean())
    bounds = certified_bound(
        torch.stack(means).cpu().clamp(0, 1),
        BOUND_DRAWS,
        objective.weight_norm,
        objective.num_parameters,
        widths,
        int(class_counts.sum()),
        settings.delta,
    )
    return {"relative_width": list(BOUND_RATIOS), "averaged_loss": means, "bound": bounds, "draws": BOUND_DRAWS}


def curvature_part(subject: Subject, settings: AnalysisSettings, sizes: Sizes) -> dict[str, Any]:
    """Hessian eigenvalues at both ends and trace for each group."""
    objective = subject.objective(settings.curvature_scope)
    groups = {}
    for name, weights in objective.groups.items():
        matvec = partial(objective.hessian_vector, weights)
        spectrum = curvature(matvec, objective.start, _required(sizes.steps), _required(sizes.probes), settings.seed)
        groups[name] = spectrum.describe()
    return {"groups": groups, "num_parameters": objective.num_parameters}


def sharpness_part(subject: Subject, settings: AnalysisSettings, sizes: Sizes) -> dict[str, Any]:
    """SAM's sharpness of each group by one and by several ascent steps."""
    objective = subject.objective(settings.curvature_scope)
    radius, steps = settings.sharpness_radius, _required(sizes.ascent_steps)
    return {
        "radius": radius,
        "relative_radius": radius / objective.weight_norm,
        "groups": {
            name: {
                "one_step": sam_sharpness(objective, weights, radius, 1),
                "several_steps": sam_sharpness(objective, weights, radius, steps),
            }
            for name, weights in objective.groups.items()
        },
    }


def _required(size: int | None) -> int:
    assert size is not None, "the plan completes every size"
    return size
