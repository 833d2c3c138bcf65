"""The list of parts of one checkpoint: names, what decides their results, computations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ccsam_hf.sharpness import class_parts, parts
from ccsam_hf.sharpness.guard import untouched
from ccsam_hf.sharpness.inputs import Checkpoint, LabelledSplit, LoadModel
from ccsam_hf.sharpness.landscape import trajectory_plane
from ccsam_hf.sharpness.objective import flatten
from ccsam_hf.sharpness.pieces import Keep
from ccsam_hf.sharpness.settings import AnalysisSettings, Sizes
from ccsam_hf.sharpness.subject import Subject

Decides = dict[str, Any]
Task = tuple[str, Decides, Callable[[Keep], dict[str, Any]]]


def tasks_of(
    checkpoint: Checkpoint,
    split: LabelledSplit,
    settings: AnalysisSettings,
    sizes: Sizes,
    subjects: Mapping[str, Subject],
) -> list[Task]:
    """Name, deciding settings and computation (a function of `Keep`) of every part, the cheap ones first.

    ``subjects`` holds those of "samples" and "few_samples" that `AnalysisSettings.used_sizes` names.
    """
    tasks: list[Task] = []
    counts, chosen = split.class_counts, settings.parts
    scope: Decides = {"radius_scope": settings.radius_scope}
    steps: Decides = {"steps": [step for step, _ in checkpoint.run]}
    if "radii" in chosen:
        many = subjects["samples"]
        tasks.append(_task("radii", many, scope, class_parts.radii_part, settings, counts))
        if checkpoint.run:
            decides = {**scope, **steps}
            tasks.append(_task("radii-history", many, decides, _history, checkpoint, settings, counts))
    if "bound" in chosen:
        decides = {**scope, "delta": settings.delta}
        tasks.append(_task("bound", subjects["samples"], decides, class_parts.bound_part, settings, counts))
    if "noise" in chosen:
        tasks += _noise_tasks(settings, sizes, subjects)
    if {"sharpness", "curvature"} & set(chosen):
        tasks += _curvature_tasks(settings, sizes, subjects["few_samples"])
    if "landscape" in chosen:
        few, grid = subjects["few_samples"], {"grid": sizes.grid}
        decides = {**grid, "grid_range": settings.grid_range}
        tasks.append(_task("landscape", few, decides, parts.landscape_part, settings, sizes))
        if checkpoint.run:
            tasks.append(_task("path", few, {**grid, **steps}, _path, checkpoint, sizes))
    return tasks


def _task(name: str, subject: Subject, decides: Decides, compute: Callable[..., dict[str, Any]], *rest: Any) -> Task:
    """``compute(subject, *rest, keep)``, which depends on the subject's images and groups too."""
    images = {"images": subject.fingerprint, "groups": list(subject.groups)}
    return name, {**decides, **images}, partial(compute, subject, *rest)


def _curvature_tasks(settings: AnalysisSettings, sizes: Sizes, few: Subject) -> list[Task]:
    tasks: list[Task] = []
    scope: Decides = {"curvature_scope": settings.curvature_scope}
    if "sharpness" in settings.parts:
        decides = {**scope, "radius": settings.sharpness_radius, "ascent_steps": sizes.ascent_steps}
        tasks.append(_task("sharpness", few, decides, parts.sharpness_part, settings, sizes))
    if "curvature" in settings.parts:
        decides = {**scope, "steps": sizes.steps, "probes": sizes.probes}
        tasks.append(_task("curvature", few, decides, parts.curvature_part, settings, sizes))
    return tasks


def _noise_tasks(settings: AnalysisSettings, sizes: Sizes, subjects: Mapping[str, Subject]) -> list[Task]:
    tasks: list[Task] = []
    for scope in settings.scopes:
        subject = subjects["samples" if scope == "classifier" else "few_samples"]
        size = Sizes(**parts.CLASSIFIER_SIZES) if scope == "classifier" else sizes
        for direction in settings.directions:
            decides: Decides = {"ranges": [settings.noise_range, settings.local_range], "levels": size.levels}
            if direction == "random":
                decides["seeds"] = size.seeds
            name = f"noise-{scope}-{direction}"
            tasks.append(_task(name, subject, decides, parts.noise_part, scope, direction, settings, size))
    return tasks


def _history(
    subject: Subject, checkpoint: Checkpoint, settings: AnalysisSettings, counts: Tensor, keep: Keep
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


def _path(subject: Subject, checkpoint: Checkpoint, sizes: Sizes, keep: Keep) -> dict[str, Any]:
    """The run's path and its plane; the analysed model closes the path unless it is the run's last checkpoint."""
    points = [flatten(dict(load().named_parameters())) for _, load in checkpoint.run]
    last = flatten(dict(subject.model.named_parameters()))
    if not torch.equal(points[-1].cpu(), last.cpu()):
        points.append(last)
    directions, coordinates, explained = trajectory_plane(torch.stack([point.to(last) for point in points]))
    return parts.path_part(subject, directions, coordinates, explained, sizes, keep)
