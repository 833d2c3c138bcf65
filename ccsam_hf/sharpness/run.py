"""One analysis of one or several checkpoints: parts on disk, figures and a report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn
from tqdm.auto import tqdm

from ccsam_hf.sharpness.budget import Plan, choose_plan, seconds_per_image
from ccsam_hf.sharpness.groups import ALL, choose_samples, group_weights, require_groups
from ccsam_hf.sharpness.guard import untouched
from ccsam_hf.sharpness.inputs import Analysis, Checkpoint, LabelledSplit
from ccsam_hf.sharpness.report import write_report
from ccsam_hf.sharpness.settings import AnalysisSettings, Sizes
from ccsam_hf.sharpness.store import PartStore, model_fingerprint, plain
from ccsam_hf.sharpness.subject import Subject, as_inputs
from ccsam_hf.sharpness.tasks import tasks_of


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
        raise ValueError(f"Checkpoints need distinct labels (--labels), at least one of them; got {labels}.")
    if not split.is_training and {"radii", "bound"} & set(settings.parts):
        raise ValueError("Radii and bounds are about the training set: use --split train or leave them out of --parts.")
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
            return Plan(Sizes(**stored["sizes"]), stored["seconds"], stored["fits"])
    model = checkpoints[0].load()
    images = as_inputs(checkpoints[0].images(torch.arange(min(settings.batch_size, len(split.labels)))), model)
    with untouched(model):
        per_image = seconds_per_image(model, images)
    planes = 2 if checkpoints[0].run else 1
    plan = choose_plan(budget, settings, sizes, per_image, len(checkpoints), planes)
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"question": question, **asdict(plan)}, indent=1))
    return plan


def _analyse_one(
    checkpoint: Checkpoint, split: LabelledSplit, folder: Path, settings: AnalysisSettings, sizes: Sizes
) -> Analysis:
    model = checkpoint.load()
    with untouched(model):
        subjects = {
            size: _subject(model, checkpoint, split, settings, getattr(sizes, size)) for size in settings.used_sizes
        }
        store = PartStore(
            folder / "data" / checkpoint.label,
            {
                "weights": model_fingerprint(model),
                "class_counts": split.class_counts.tolist(),
                # Statistics are means over batches, so that their size decides too.
                "recalibrate_bn": settings.recalibrate_bn and settings.batch_size,
                "last_stage": settings.last_stage,
                "thresholds": settings.thresholds.describe(),
                "seed": settings.seed,
            },
        )
        results = {}
        tasks = tasks_of(checkpoint, split, settings, sizes, subjects)
        for name, chosen, compute in tqdm(tasks, desc=checkpoint.label, disable=None):
            results[name] = store.get(name, chosen, compute)
    samples = {size: len(subject.labels) for size, subject in subjects.items()}
    seen = {group for subject in subjects.values() for group in subject.groups}
    absent = [group for group in settings.groups or settings.thresholds.masks(split.class_counts) if group not in seen]
    return Analysis(checkpoint.label, results, store.files, samples, absent)


def _subject(
    model: nn.Module, checkpoint: Checkpoint, split: LabelledSplit, settings: AnalysisSettings, limit: int
) -> Subject:
    """At most ``limit`` images with their group weights."""
    index = choose_samples(split.labels, split.class_counts, limit, settings.thresholds, settings.seed)
    labels = split.labels[index]
    split_counts = torch.bincount(split.labels, minlength=len(split.class_counts))
    weights = group_weights(labels, split_counts, split.class_counts, settings.thresholds)
    if settings.groups is not None:
        require_groups(settings.groups, weights, settings.thresholds)
    wanted = {ALL, *(settings.groups or weights)}
    return Subject(
        model,
        checkpoint.images(index),
        labels,
        {name: weight for name, weight in weights.items() if name in wanted},
        settings.batch_size,
        settings.recalibrate_bn,
        settings.last_stage,
    )
