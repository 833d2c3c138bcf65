"""One analysis of one or several checkpoints: parts on disk, figures and a report."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ccsam_hf.analysis import parts
from ccsam_hf.analysis.budget import Plan, choose_plan, seconds_per_image
from ccsam_hf.analysis.groups import choose_samples, group_weights, require_groups
from ccsam_hf.analysis.guard import untouched
from ccsam_hf.analysis.landscape import trajectory_plane
from ccsam_hf.analysis.objective import flatten
from ccsam_hf.analysis.report import write_report
from ccsam_hf.analysis.settings import AnalysisSettings, Sizes
from ccsam_hf.analysis.store import PartStore, fingerprint, model_fingerprint, plain
from ccsam_hf.analysis.subject import Subject

LoadModel = Callable[[], nn.Module]


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


@dataclass(frozen=True)
class LabelledSplit:
    """The split whose losses are analysed: its name, all its labels [N], and the *training* class counts [C]."""

    name: str
    labels: Tensor
    class_counts: Tensor
    is_training: bool = True

    def __post_init__(self) -> None:
        if self.class_counts.ndim != 1 or not bool((self.class_counts >= 0).all()) or self.class_counts.sum() < 1:
            raise ValueError(
                "Many-, medium- and few-shot classes need the class counts of the training set, one number for each "
                "class; pass class_counts (the checkpoint's config.json may hold them)."
            )
        if len(self.labels) == 0 or self.labels.min() < 0 or self.labels.max() >= len(self.class_counts):
            raise ValueError(
                f"The labels of split {self.name!r} do not lie in 0..{len(self.class_counts) - 1}: "
                "the class counts belong to another data set; pass those of this one."
            )


@dataclass(frozen=True)
class Analysis:
    """Results of one checkpoint: {part: numbers}, the files they lie in, and how many images were used."""

    label: str
    results: dict[str, Any]
    files: dict[str, Path]
    samples: dict[str, int]
    absent_groups: list[str] = field(default_factory=list)


def analyse(
    checkpoints: Sequence[Checkpoint],
    split: LabelledSplit,
    output_dir: Path | str,
    settings: AnalysisSettings | None = None,
    sizes: Sizes | None = None,
    budget: float = 10.0,
) -> Path:
    """Analyse checkpoints into ``output_dir`` and return the report's path, a Markdown file.

    ``budget`` minutes choose those ``sizes`` that are None. Finished parts of an earlier, interrupted call with the
    same weights, images and settings are taken from the folder. The models are given back as they were.
    """
    settings, sizes, folder = settings or AnalysisSettings(), sizes or Sizes(), Path(output_dir)
    labels = [checkpoint.label for checkpoint in checkpoints]
    if not labels or len(set(labels)) < len(labels):
        raise ValueError(f"Checkpoints need distinct labels, at least one of them; got {labels}.")
    if not split.is_training and {"radii", "bound"} & set(settings.parts):
        raise ValueError(
            "Radii and bounds are about the training set: use --split train, or leave them out of --parts."
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
        stored = json.loads(path.read_text())
        if stored["question"] == question:
            return Plan(Sizes(**stored["sizes"]), stored["seconds"])
    model = checkpoints[0].load()
    images = checkpoints[0].images(torch.arange(min(64, len(split.labels)))).to(next(model.parameters()))
    with untouched(model):
        per_image = seconds_per_image(model, images)
    planes = 2 if checkpoints[0].run else 1
    plan = choose_plan(budget, settings, sizes, per_image, len(checkpoints), planes)
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"question": question, "sizes": asdict(plan.sizes), "seconds": plan.seconds}, indent=1))
    return plan


def _analyse_one(
    checkpoint: Checkpoint, split: LabelledSplit, folder: Path, settings: AnalysisSettings, sizes: Sizes
) -> Analysis:
    model = checkpoint.load()
    with untouched(model):
        many, absent = _subject(model, checkpoint, split, settings, sizes.samples)
        few, _ = _subject(model, checkpoint, split, settings, sizes.few_samples)
        store = PartStore(
            folder / "data" / checkpoint.label,
            {
                "weights": model_fingerprint(model),
                "images": fingerprint({"images": many.images, "few": few.images, "labels": many.labels}),
                "class_counts": split.class_counts.tolist(),
                "recalibrate_bn": settings.recalibrate_bn,
                "last_stage": settings.last_stage,
                "groups": list(many.groups),
                "thresholds": settings.thresholds.describe(),
                "seed": settings.seed,
            },
        )
        results = {}
        tasks = _tasks(checkpoint, split, settings, sizes, many, few)
        for name, chosen, compute in tqdm(tasks, desc=checkpoint.label, disable=None):
            results[name] = store.get(name, chosen, compute)
    samples = {"samples": len(many.labels), "few_samples": len(few.labels)}
    return Analysis(checkpoint.label, results, store.files, samples, absent)


Task = tuple[str, dict[str, Any], Callable[[], dict[str, Any]]]


def _tasks(
    checkpoint: Checkpoint,
    split: LabelledSplit,
    settings: AnalysisSettings,
    sizes: Sizes,
    many: Subject,
    few: Subject,
) -> list[Task]:
    """Name, deciding settings and computation of every part, the cheap ones first."""
    tasks: list[Task] = []
    counts, chosen = split.class_counts, settings.parts
    scope = {"radius_scope": settings.radius_scope}
    curved = {"curvature_scope": settings.curvature_scope}
    if "radii" in chosen:
        tasks.append(("radii", scope, lambda: parts.radii_part(many, settings, counts)))
        if checkpoint.run:
            steps = {"steps": [step for step, _ in checkpoint.run], **scope}
            tasks.append(("radii-history", steps, lambda: _history(checkpoint, many, settings, counts)))
    if "bound" in chosen:
        tasks.append(("bound", {**scope, "delta": settings.delta}, lambda: parts.bound_part(many, settings, counts)))
    if "noise" in chosen:
        tasks += _noise_tasks(settings, sizes, many, few)
    if "sharpness" in chosen:
        decides = {**curved, "radius": settings.sharpness_radius, "ascent_steps": sizes.ascent_steps}
        tasks.append(("sharpness", decides, lambda: parts.sharpness_part(few, settings, sizes)))
    if "curvature" in chosen:
        decides = {**curved, "steps": sizes.steps, "probes": sizes.probes}
        tasks.append(("curvature", decides, lambda: parts.curvature_part(few, settings, sizes)))
    if "landscape" in chosen:
        grid = {"grid": sizes.grid, "grid_range": settings.grid_range}
        tasks.append(("landscape", grid, lambda: parts.landscape_part(few, settings, sizes)))
        if checkpoint.run:
            steps = {"grid": sizes.grid, "steps": [step for step, _ in checkpoint.run]}
            tasks.append(("path", steps, lambda: _path(checkpoint, few, sizes)))
    return tasks


def _noise_tasks(settings: AnalysisSettings, sizes: Sizes, many: Subject, few: Subject) -> list[Task]:
    tasks: list[Task] = []
    for scope in settings.scopes:
        subject = many if scope == "classifier" else few
        size = Sizes(**parts.CLASSIFIER_SIZES) if scope == "classifier" else sizes
        for direction in settings.directions:
            ranges = {"noise_range": settings.noise_range, "local_range": settings.local_range}
            decides = {**ranges, "levels": size.levels, "seeds": size.seeds}
            tasks.append(
                (
                    f"noise-{scope}-{direction}",
                    decides,
                    lambda subject=subject, scope=scope, direction=direction, size=size: parts.noise_part(
                        subject, scope, direction, settings, size
                    ),
                )
            )
    return tasks


def _subject(
    model: nn.Module, checkpoint: Checkpoint, split: LabelledSplit, settings: AnalysisSettings, limit: int | None
) -> tuple[Subject, list[str]]:
    """At most ``limit`` images with their group weights, and the groups that have none."""
    assert limit is not None
    index = choose_samples(split.labels, split.class_counts, limit, settings.thresholds, settings.seed)
    labels = split.labels[index]
    split_counts = torch.bincount(split.labels, minlength=len(split.class_counts))
    weights = group_weights(labels, split_counts, split.class_counts, settings.thresholds)
    if settings.groups is not None:
        require_groups(settings.groups, weights, settings.thresholds)
    absent = [name for name in settings.thresholds.masks(split.class_counts) if name not in weights]
    groups = {name: weight for name, weight in weights.items() if settings.groups is None or name in settings.groups}
    subject = Subject(
        model,
        checkpoint.images(index),
        labels,
        groups,
        settings.batch_size,
        settings.recalibrate_bn,
        settings.last_stage,
    )
    return subject, absent


def _history(checkpoint: Checkpoint, subject: Subject, settings: AnalysisSettings, counts: Tensor) -> dict[str, Any]:
    """Few/many ratios and rank correlations of radii and gradient norms at each step of the run."""
    names = ("few_over_many", "rank_correlation", "gradient_few_over_many", "gradient_rank_correlation")
    rows: dict[str, list[Any]] = {"steps": [], **{name: [] for name in names}}
    for step, load in tqdm(checkpoint.run, desc="run", leave=False, disable=None):
        model = load()
        with untouched(model):
            radii = parts.radii_part(_with_model(subject, model), settings, counts)
        rows["steps"].append(step)
        for name in names:
            rows[name].append(radii[name])
    return rows


def _with_model(subject: Subject, model: nn.Module) -> Subject:
    """The same images and groups, another model."""
    return Subject(
        model,
        subject.images,
        subject.labels,
        subject.groups,
        subject.batch_size,
        subject.recalibrate,
        subject.last_stage,
    )


def _path(checkpoint: Checkpoint, subject: Subject, sizes: Sizes) -> dict[str, Any]:
    """The run's path and its plane; the analysed model closes the path unless it is the run's last checkpoint."""
    points = [flatten(dict(load().named_parameters())) for _, load in checkpoint.run]
    last = flatten(dict(subject.model.named_parameters()))
    if not torch.equal(points[-1].cpu(), last.cpu()):
        points.append(last)
    directions, coordinates, explained = trajectory_plane(torch.stack([point.to(last) for point in points]))
    return parts.path_part(subject, directions, coordinates, explained, sizes)
