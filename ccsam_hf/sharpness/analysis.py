"""One analysis of one or several checkpoints: the list of measures, their results on disk, the report."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from .bounds import measure_bounds
from .budget import AnalysisSettings, Plan, Sizes, choose_plan, seconds_per_image
from .curvature import measure_curvature, measure_sam_sharpness
from .landscape import measure_landscape, measure_path, trajectory_plane
from .noise import CLASSIFIER_SIZES, measure_noise, noise_name
from .objective import flatten
from .problem import AnalysedNetwork, LoadModel, as_inputs, untouched
from .radii import measure_radii, radii_history
from .saved_results import Keep, ResultFolder, model_fingerprint, plain
from .sharpness_report import Analysis, write_report
from .shot_samples import ALL, LabelledSplit, choose_samples, group_weights, require_groups

Decides = dict[str, Any]
Measure = tuple[str, Decides, Callable[[Keep], dict[str, Any]]]


@dataclass(frozen=True)
class Checkpoint:
    """A model to analyse: how to load it, and its input [N, ...] for sample indices [N] of the split.

    ``run`` holds (step, load) of earlier checkpoints of the same run, in order: they give the optimisation path and
    the history of the radii.
    """

    label: str
    load: LoadModel
    images: Callable[[Tensor], Tensor]
    run: Sequence[tuple[int, LoadModel]] = ()


def analyse(
    checkpoints: Sequence[Checkpoint],
    split: LabelledSplit,
    output_dir: Path | str,
    settings: AnalysisSettings | None = None,
    sizes: Sizes | None = None,
    budget: float = 10.0,
) -> Path:
    """Analyse checkpoints into ``output_dir`` and return the report's path, a Markdown file.

    ``budget`` minutes choose those ``sizes`` that are None. Finished measures of an earlier, interrupted call with the
    same weights, images and settings are taken from the folder. The models are given back as they were.
    """
    settings, sizes, folder = settings or AnalysisSettings(), sizes or Sizes(), Path(output_dir)
    labels = [checkpoint.label for checkpoint in checkpoints]
    if not labels or len(set(labels)) < len(labels):
        raise ValueError(f"Checkpoints need distinct labels (--labels), at least one of them; got {labels}.")
    if not split.is_training and {"radii", "bound"} & set(settings.measures):
        raise ValueError(
            "Radii and bounds are about the training set: use --split train or leave them out of --measures."
        )
    plan = _plan(checkpoints, split, folder, settings, sizes, budget)
    analyses = [_analyse_one(checkpoint, split, folder, settings, plan.sizes) for checkpoint in checkpoints]
    return write_report(analyses, split.name, folder, settings, plan)


def _plan(
    checkpoints: Sequence[Checkpoint],
    split: LabelledSplit,
    folder: Path,
    settings: AnalysisSettings,
    sizes: Sizes,
    budget: float,
) -> Plan:
    """The plan of an earlier call with the same question, else a new one: timings differ, resumed sizes must not."""
    question = plain({"budget": budget, "sizes": asdict(sizes), **settings.describe(), "models": len(checkpoints)})
    path = folder / "plan.json"
    if path.exists():
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["question"] == question:
            return Plan(Sizes(**stored["sizes"]), stored["seconds"], stored["fits"])
    model = checkpoints[0].load()
    images = as_inputs(checkpoints[0].images(torch.arange(min(settings.batch_size, len(split.labels)))), model)
    with untouched(model):
        per_image = seconds_per_image(model, images)
    planes = 2 if checkpoints[0].run else 1
    plan = choose_plan(budget, settings, sizes, per_image, len(checkpoints), planes)
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"question": question, **asdict(plan)}, indent=1), encoding="utf-8")
    return plan


def _analyse_one(
    checkpoint: Checkpoint, split: LabelledSplit, folder: Path, settings: AnalysisSettings, sizes: Sizes
) -> Analysis:
    model = checkpoint.load()
    with untouched(model):
        networks = {
            size: _network(model, checkpoint, split, settings, getattr(sizes, size)) for size in settings.used_sizes
        }
        saved = ResultFolder(
            folder / "data" / checkpoint.label,
            {
                "weights": model_fingerprint(model),
                "class_counts": split.class_counts.tolist(),
                # Statistics are means over batches, so that their size decides too.
                "recalibrate_bn": settings.recalibrate_bn and settings.batch_size,
                "thresholds": settings.thresholds.describe(),
                "seed": settings.seed,
            },
        )
        results = {}
        measures = measures_of(checkpoint, split, settings, sizes, networks)
        for name, chosen, compute in tqdm(measures, desc=checkpoint.label, disable=None):
            results[name] = saved.get(name, chosen, compute)
    samples = {size: len(network.labels) for size, network in networks.items()}
    seen = {group for network in networks.values() for group in network.groups}
    absent = [group for group in settings.groups or settings.thresholds.masks(split.class_counts) if group not in seen]
    return Analysis(checkpoint.label, results, saved.files, samples, absent)


def _network(
    model: nn.Module, checkpoint: Checkpoint, split: LabelledSplit, settings: AnalysisSettings, limit: int
) -> AnalysedNetwork:
    """At most ``limit`` images with their group weights."""
    index = choose_samples(split.labels, split.class_counts, limit, settings.thresholds, settings.seed)
    labels = split.labels[index]
    split_counts = torch.bincount(split.labels, minlength=len(split.class_counts))
    weights = group_weights(labels, split_counts, split.class_counts, settings.thresholds)
    if settings.groups is not None:
        require_groups(settings.groups, weights, settings.thresholds)
    wanted = {ALL, *(settings.groups or weights)}
    return AnalysedNetwork(
        model,
        checkpoint.images(index),
        labels,
        {name: weight for name, weight in weights.items() if name in wanted},
        settings.batch_size,
        settings.recalibrate_bn,
    )


def measures_of(
    checkpoint: Checkpoint,
    split: LabelledSplit,
    settings: AnalysisSettings,
    sizes: Sizes,
    networks: Mapping[str, AnalysedNetwork],
) -> list[Measure]:
    """Name, deciding settings and computation (a function of `Keep`) of every measure, the cheap ones first.

    ``networks`` holds those of "samples" and "few_samples" that `AnalysisSettings.used_sizes` names.
    """
    measures: list[Measure] = []
    counts, chosen = split.class_counts, settings.measures
    scope: Decides = {"radius_scope": settings.radius_scope}
    steps: Decides = {"steps": [step for step, _ in checkpoint.run]}
    if "radii" in chosen:
        many = networks["samples"]
        measures.append(_measure("radii", many, scope, measure_radii, settings, counts))
        if checkpoint.run:
            decides = {**scope, **steps}
            measures.append(_measure("radii-history", many, decides, radii_history, checkpoint.run, settings, counts))
    if "bound" in chosen:
        decides = {**scope, "delta": settings.delta}
        measures.append(_measure("bound", networks["samples"], decides, measure_bounds, settings, counts))
    if "noise" in chosen:
        measures += _noise_measures(settings, sizes, networks)
    if {"sharpness", "curvature"} & set(chosen):
        measures += _curvature_measures(settings, sizes, networks["few_samples"])
    if "landscape" in chosen:
        few, grid = networks["few_samples"], {"grid": sizes.grid}
        decides = {**grid, "grid_range": settings.grid_range}
        measures.append(_measure("landscape", few, decides, measure_landscape, settings, sizes))
        if checkpoint.run:
            measures.append(_measure("path", few, {**grid, **steps}, _path, checkpoint, sizes))
    return measures


def _measure(
    name: str, network: AnalysedNetwork, decides: Decides, compute: Callable[..., dict[str, Any]], *rest: Any
) -> Measure:
    """``compute(network, *rest, keep)``, which depends on the network's images and groups too."""
    images = {"images": network.fingerprint, "groups": list(network.groups)}
    return name, {**decides, **images}, partial(compute, network, *rest)


def _curvature_measures(settings: AnalysisSettings, sizes: Sizes, few: AnalysedNetwork) -> list[Measure]:
    measures: list[Measure] = []
    scope: Decides = {"curvature_scope": settings.curvature_scope}
    if "sharpness" in settings.measures:
        decides = {**scope, "radius": settings.sharpness_radius, "ascent_steps": sizes.ascent_steps}
        measures.append(_measure("sharpness", few, decides, measure_sam_sharpness, settings, sizes))
    if "curvature" in settings.measures:
        decides = {**scope, "steps": sizes.steps, "probes": sizes.probes}
        measures.append(_measure("curvature", few, decides, measure_curvature, settings, sizes))
    return measures


def _noise_measures(settings: AnalysisSettings, sizes: Sizes, networks: Mapping[str, AnalysedNetwork]) -> list[Measure]:
    measures: list[Measure] = []
    for scope in settings.scopes:
        network = networks["samples" if scope == "classifier" else "few_samples"]
        size = Sizes(**CLASSIFIER_SIZES) if scope == "classifier" else sizes
        for direction in settings.directions:
            decides: Decides = {
                "scope": scope,
                "ranges": [settings.noise_range, settings.local_range],
                "levels": size.levels,
            }
            if direction == "random":
                decides["seeds"] = size.seeds
            name = noise_name(scope, direction)
            measures.append(_measure(name, network, decides, measure_noise, scope, direction, settings, size))
    return measures


def _path(network: AnalysedNetwork, checkpoint: Checkpoint, sizes: Sizes, keep: Keep) -> dict[str, Any]:
    """The run's path and its plane; the analysed model closes the path unless it is the run's last checkpoint."""
    points = [flatten(dict(load().named_parameters())) for _, load in checkpoint.run]
    last = flatten(dict(network.model.named_parameters()))
    if not torch.equal(points[-1].cpu(), last.cpu()):
        points.append(last)
    directions, coordinates, explained = trajectory_plane(torch.stack([point.to(last) for point in points]))
    return measure_path(network, directions, coordinates, explained, sizes, keep)
