"""The command line: checkpoints and a benchmark in, a report out."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from tqdm.auto import tqdm

from ccsam_hf.data import Benchmark, labels_of
from ccsam_hf.evaluation.benchmark_options import (
    add_benchmark_options,
    add_shot_options,
    chosen_benchmark,
    chosen_thresholds,
    split_named,
)
from ccsam_hf.inference import Classifier, load_classifier
from ccsam_hf.sharpness.inputs import Checkpoint, LabelledSplit, LoadModel
from ccsam_hf.sharpness.run import analyse
from ccsam_hf.sharpness.scopes import SCOPES
from ccsam_hf.sharpness.settings import DIRECTIONS, PARTS, AnalysisSettings, Sizes
from ccsam_hf.shots import SHOT_GROUPS


def parser() -> argparse.ArgumentParser:
    """Options; those of `AnalysisSettings` and `Sizes` bear their names."""
    default = AnalysisSettings()
    new = argparse.ArgumentParser(prog="sharpness", description=__doc__)
    add = new.add_argument
    add("--model", nargs="+", required=True, help="folders or Hub ids, compared side by side")
    add("--labels", nargs="+", help="their names in the report; default: the folders' names, as far as they differ")
    add("--run_dir", nargs="+", default=[], help="one folder of checkpoint-STEP folders for each model: path, history")
    add("--class_counts", help="JSON list of training counts, or 'benchmark', for models that do not record them")
    add_benchmark_options(new)
    add("--split", choices=("train", "validation", "test"), default="train")
    add("--output_dir", required=True)
    add("--budget", type=float, default=10.0, help="minutes; chooses the sizes that are not given")
    for size in fields(Sizes):
        add(f"--{size.name}", type=int)
    add("--parts", nargs="+", default=PARTS, help=f"of {' '.join(PARTS)}")
    add("--scopes", nargs="+", default=SCOPES, help=f"of noise: {' '.join(SCOPES)}")
    add("--directions", nargs="+", default=DIRECTIONS, help=f"of noise: {' '.join(DIRECTIONS)}")
    add("--groups", nargs="+", help=f"of {' '.join(SHOT_GROUPS)}; default: those that have samples")
    for name in ("noise_range", "local_range", "grid_range", "sharpness_radius", "delta"):
        add(f"--{name}", type=float, default=getattr(default, name))
    for name in ("radius_scope", "curvature_scope"):
        add(f"--{name}", choices=SCOPES, default=getattr(default, name))
    add("--last_stage", help="name of the module where the scope last_stage begins")
    add("--recalibrate_bn", action="store_true", help="re-estimate BatchNorm statistics at every weight vector")
    add_shot_options(new)
    add("--batch_size", type=int, default=default.batch_size)
    add("--seed", type=int, default=default.seed)
    return new


def main(arguments: Sequence[str] | None = None) -> Path:
    """Run the analysis that the arguments describe, print and return the report's path."""
    options = parser().parse_args(arguments)
    benchmark = chosen_benchmark(options)
    settings = _settings(options, benchmark)
    sizes = Sizes(**{size.name: getattr(options, size.name) for size in fields(Sizes)})
    dataset = split_named(benchmark, options.split)
    labels = torch.as_tensor(labels_of(dataset))
    split = LabelledSplit(
        f"{options.benchmark} {options.split}", labels, benchmark.class_counts, options.split == "train"
    )
    checkpoints = _checkpoints(options, benchmark, dataset.select_columns(["image"]))
    report = analyse(checkpoints, split, options.output_dir, settings, sizes, options.budget)
    print(f"Report: {report}")
    return report


def _settings(options: argparse.Namespace, benchmark: Benchmark) -> AnalysisSettings:
    thresholds = chosen_thresholds(options, benchmark.record.thresholds)
    chosen = {item.name: getattr(options, item.name) for item in fields(AnalysisSettings) if item.name != "thresholds"}
    as_tuples: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in chosen.items()
    }
    return AnalysisSettings(**as_tuples, thresholds=thresholds)


def _checkpoints(options: argparse.Namespace, benchmark: Benchmark, pictures: Dataset) -> list[Checkpoint]:
    labels = options.labels or distinct_labels(options.model)
    if len(labels) != len(options.model):
        raise ValueError(f"--labels names {len(labels)} of {len(options.model)} models; name each of them.")
    if len(options.run_dir) not in (0, len(options.model)):
        raise ValueError(
            f"--run_dir names {len(options.run_dir)} folders for {len(options.model)} models; name one each."
        )
    runs = options.run_dir or [None] * len(options.model)
    checkpoints = []
    for model, label, run in zip(options.model, labels, runs, strict=True):
        classifier = load_classifier(model)
        check_counts(model, classifier.class_counts, benchmark.class_counts, options.class_counts)
        earlier = [] if run is None else [(step, _loader(folder)) for step, folder in run_folders(Path(run))]
        checkpoints.append(Checkpoint(label, _loader(model), _pictures(classifier, pictures), earlier))
    return checkpoints


def distinct_labels(models: Sequence[str]) -> list[str]:
    """The folders' names, with as many of the folders above as tell them apart: every run leaves one called model."""
    parts = [Path(model).parts for model in models]
    labels = [Path(model).name for model in models]
    for depth in range(2, max(map(len, parts)) + 1):
        if len(set(labels)) == len(labels):
            break
        labels = ["-".join(path[-depth:]).replace("/", "") for path in parts]
    return labels


def _loader(source: str | Path) -> LoadModel:
    def load() -> nn.Module:
        return load_classifier(source).model.float()

    return load


def _pictures(classifier: Classifier, pictures: Dataset) -> Callable[[Tensor], Tensor]:
    """Sample indices -> the model's inputs, by the transform that the checkpoint was evaluated with."""

    def load(index: Tensor) -> Tensor:
        images = (pictures[position]["image"] for position in index.tolist())
        return torch.stack([classifier.transform(image) for image in tqdm(images, "images", len(index), disable=None)])

    return load


def run_folders(run: Path) -> list[tuple[int, Path]]:
    """(step, folder) of a run's checkpoint-STEP folders, by step."""
    found = [(int(folder.name.removeprefix("checkpoint-")), folder) for folder in run.glob("checkpoint-[0-9]*")]
    if len(found) < 3:
        raise ValueError(f"{run} holds {len(found)} checkpoint-STEP folders, a path needs 3; train with save_strategy.")
    return sorted(found)


def check_counts(model: str, recorded: Sequence[int] | None, counts: Tensor, given: str | None) -> None:
    """Refuse a model whose training counts are unknown, or others than the benchmark's."""
    if recorded is None and given is None:
        raise ValueError(
            f"{model} does not record the class counts of its training set, on which many, medium and few shot rest; "
            "pass --class_counts FILE.json, or --class_counts benchmark if it was trained on this very split."
        )
    if given == "benchmark":
        return
    if given is not None:
        recorded = json.loads(Path(given).read_text())
    if list(recorded or []) != counts.tolist():
        raise ValueError(
            f"The class counts of {model} are not those of the benchmark's training set; choose the imbalance ratio "
            "and split seed that it was trained with."
        )
