"""The list of parts of one checkpoint: names, what decides their results, computations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ccsam_hf.analysis import class_parts, parts
from ccsam_hf.analysis.guard import untouched
from ccsam_hf.analysis.inputs import Checkpoint, LabelledSplit, LoadModel
from ccsam_hf.analysis.landscape import trajectory_plane
from ccsam_hf.analysis.objective import flatten
from ccsam_hf.analysis.pieces import Keep
from ccsam_hf.analysis.settings import AnalysisSettings, Sizes
from ccsam_hf.analysis.subject import Subject

Decides = dict[str, Any]
Task = tuple[str, Decides, Callable[[Keep], dict[str, Any]]]


def tasks_of(
    checkpoint: Checkpoint,
    split: LabelledSplit,
    settings: AnalysisSettings,
    sizes: Sizes,
    many: Subject,
    few: Subject,
) -> list[Task]:
    """Name, deciding settings and computation (a function of `Keep`) of every part, the cheap ones first."""
    tasks: list[Task] = []
    counts, chosen = split.class_counts, settings.parts
    scope: Decides = {"radius_scope": settings.radius_scope}
    steps: Decides = {"steps": [step for step, _ in checkpoint.run]}
    if "radii" in chosen:
        tasks.append(("radii", scope, partial(class_parts.radii_part, many, settings, counts)))
        if checkpoint.run:
            tasks.append(("radii-history", {**scope, **steps}, partial(_history, checkpoint, many, settings, counts)))
    if "bound" in chosen:
        tasks.append(
            ("bound", {**scope, "delta": settings.delta}, partial(class_parts.bound_part, many, settings, counts))
        )
    if "noise" in chosen:
        tasks += _noise_tasks(settings, sizes, many, few)
    tasks += _curvature_tasks(settings, sizes, few)
    if "landscape" in chosen:
        grid: Decides = {"grid": sizes.grid}
        surface = partial(parts.landscape_part, few, settings, sizes)
        tasks.append(("landscape", {**grid, "grid_range": settings.grid_range}, surface))
        if checkpoint.run:
            tasks.append(("path", {**grid, **steps}, partial(_path, checkpoint, few, sizes)))
    return tasks


def _curvature_tasks(settings: AnalysisSettings, sizes: Sizes, few: Subject) -> list[Task]:
    tasks: list[Task] = []
    scope: Decides = {"curvature_scope": settings.curvature_scope}
    if "sharpness" in settings.parts:
        decides = {**scope, "radius": settings.sharpness_radius, "ascent_steps": sizes.ascent_steps}
        tasks.append(("sharpness", decides, partial(parts.sharpness_part, few, settings, sizes)))
    if "curvature" in settings.parts:
        decides = {**scope, "steps": sizes.steps, "probes": sizes.probes}
        tasks.append(("curvature", decides, partial(parts.curvature_part, few, settings, sizes)))
    return tasks


def _noise_tasks(settings: AnalysisSettings, sizes: Sizes, many: Subject, few: Subject) -> list[Task]:
    tasks: list[Task] = []
    for scope in settings.scopes:
        subject = many if scope == "classifier" else few
        size = Sizes(**parts.CLASSIFIER_SIZES) if scope == "classifier" else sizes
        for direction in settings.directions:
            decides = {"ranges": [settings.noise_range, settings.local_range], "levels": size.levels}
            if direction == "random":
                decides["seeds"] = size.seeds
            compute = partial(parts.noise_part, subject, scope, direction, settings, size)
            tasks.append((f"noise-{scope}-{direction}", decides, compute))
    return tasks


def _history(
    checkpoint: Checkpoint, subject: Subject, settings: AnalysisSettings, counts: Tensor, keep: Keep
) -> dict[str, Any]:
    """Few/many ratios and rank correlations of radii and gradient norms at each step of the run."""
    names = ("few_over_many", "rank_correlation", "gradient_few_over_many", "gradient_rank_correlation")

    def figures(load: LoadModel) -> list[float | None]:
        model = load()
        with untouched(model):
            radii = class_parts.radii_part(replace(subject, model=model), settings, counts)
        return [radii[name] for name in names]

    rows: dict[str, list[Any]] = {"steps": [], **{name: [] for name in names}}
    for step, load in tqdm(checkpoint.run, desc="run", leave=False, disable=None):
        rows["steps"].append(step)
        for name, value in zip(names, keep(f"step {step}", partial(figures, load)), strict=True):
            rows[name].append(value)
    return rows


def _path(checkpoint: Checkpoint, subject: Subject, sizes: Sizes, keep: Keep) -> dict[str, Any]:
    """The run's path and its plane; the analysed model closes the path unless it is the run's last checkpoint."""
    points = [flatten(dict(load().named_parameters())) for _, load in checkpoint.run]
    last = flatten(dict(subject.model.named_parameters()))
    if not torch.equal(points[-1].cpu(), last.cpu()):
        points.append(last)
    directions, coordinates, explained = trajectory_plane(torch.stack([point.to(last) for point in points]))
    return parts.path_part(subject, directions, coordinates, explained, sizes, keep)
