"""Characteristic radii of the classes, whether rarer classes have larger ones, and their history along a run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor
from tqdm.auto import tqdm

from ..sam.radius import characteristic_radius
from ..training.meters import rank_correlation
from .budget import AnalysisSettings
from .problem import AnalysedNetwork, LoadModel, cross_entropy, untouched
from .saved_results import Keep, compute_anew


def measure_radii(
    network: AnalysedNetwork, settings: AnalysisSettings, class_counts: Tensor, keep: Keep = compute_anew
) -> dict[str, Any]:
    """Class gradient norms, ρ_c (Eq. 8) and ‖ε_c‖/‖w‖ = √k ρ_c/‖w‖ (Eq. 9), for the classes with samples."""
    objective = network.objective(settings.radius_scope)
    losses, norms = network.class_gradients(settings.radius_scope, cross_entropy, len(class_counts), keep)
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


def few_over_many(values: Tensor, masks: dict[str, Tensor]) -> float | None:
    """Median over few-shot classes divided by the median over many-shot ones; None without either or at 0."""
    groups = [values[masks[name] & values.isfinite()] for name in ("few", "many")]
    if not all(len(group) for group in groups) or not groups[1].median() > 0:
        return None
    return float(groups[0].median() / groups[1].median())


def radii_history(
    network: AnalysedNetwork,
    run: Iterable[tuple[int, LoadModel]],
    settings: AnalysisSettings,
    counts: Tensor,
    keep: Keep = compute_anew,
) -> dict[str, Any]:
    """Few/many ratios and rank correlations of radii and gradient norms at each step of the run."""
    names = ("few_over_many", "rank_correlation", "gradient_few_over_many", "gradient_rank_correlation")

    def figures(load: LoadModel) -> list[float | None]:
        model = load()
        with untouched(model):
            radii = measure_radii(replace(network, model=model), settings, counts)
        return [radii[name] for name in names]

    rows: dict[str, list[Any]] = {"steps": [], **{name: [] for name in names}}
    for step, load in tqdm(run, desc="run", leave=False, disable=None):
        rows["steps"].append(step)
        for name, value in zip(names, keep(f"step {step}", partial(figures, load)), strict=True):
            rows[name].append(value)
    return rows
