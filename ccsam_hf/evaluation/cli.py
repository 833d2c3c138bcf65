"""The command line: a checkpoint and a benchmark in, every figure and a short table out."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from ccsam_hf.data import Benchmark
from ccsam_hf.evaluation.benchmark_options import (
    add_benchmark_options,
    add_shot_options,
    chosen_benchmark,
    chosen_thresholds,
    split_named,
)
from ccsam_hf.evaluation.compare import compare_predictions
from ccsam_hf.evaluation.evaluate import OpenSet, evaluate_model
from ccsam_hf.evaluation.figures import group_bars_figure
from ccsam_hf.evaluation.open_images import load_open_images
from ccsam_hf.evaluation.options import OPEN_SCORERS, EvaluationOptions, OpenSetOptions
from ccsam_hf.evaluation.result import METRICS_FILE, Evaluation, Predictions, write_json
from ccsam_hf.evaluation.table import paired_table, summary_table
from ccsam_hf.inference import load_classifier
from ccsam_hf.shots import ShotThresholds


def parser() -> argparse.ArgumentParser:
    """Options; those of `EvaluationOptions` and `OpenSetOptions` bear their names, the latter with "open_"."""
    new = argparse.ArgumentParser(prog="evaluate", description=__doc__)
    _data_options(new.add_argument_group("data"))
    _figure_options(new.add_argument_group("figures"))
    _open_options(new.add_argument_group("open set"))
    return new


def _data_options(group: Any) -> None:
    add = group.add_argument
    add("--model", required=True, help="folder or Hub id of this package, timm or transformers")
    add("--output_dir", required=True)
    add_benchmark_options(group)
    add("--split", choices=("test", "validation"), default="test")
    add("--trust_remote_code", action="store_true")
    add("--batch_size", type=int, default=EvaluationOptions().batch_size)
    add("--num_workers", type=int, default=0)


def _figure_options(group: Any) -> None:
    add, default = group.add_argument, EvaluationOptions()
    add_shot_options(group)
    add("--calibration_bins", type=int, default=default.calibration_bins)
    add("--logit_adjustment", type=float, default=default.logit_adjustment, help="tau; 0: logits as they are")
    add("--targets", nargs="+", default=[], help="shifted test sets: forward-R, uniform, backward-R")
    add("--source_prior", choices=("train", "uniform"), help="that the logits presume; default: as recorded")
    add("--bootstrap", type=int, default=default.bootstrap, help="replicates of the intervals; 0: none")
    add("--level", type=float, default=default.level)
    add("--seed", type=int, default=default.seed)
    add("--compare_with", help="output folder of another checkpoint on the same split: differences and p-values")


def _open_options(group: Any) -> None:
    add, default = group.add_argument, OpenSetOptions()
    add("--open_dataset", help="images of unknown classes: benchmark name, list (.txt), folder or Hub id")
    add("--open_data_dir")
    add("--open_split", help="of a folder or Hub data set; default: test, or the only one")
    add("--open_scorers", nargs="+", default=list(default.scorers), choices=OPEN_SCORERS)
    add("--open_threshold", type=float, default=default.threshold, help="fixed, for scores that are probabilities")
    add("--open_use_validation", action="store_true", help="choose thresholds on the benchmark's validation set")
    add("--open_holdout", help="open images, beside that validation set, to choose thresholds by F")
    add("--open_holdout_recall", type=float, default=default.holdout_recall)
    add("--open_tail_size", type=int, default=default.tail_size)
    add("--open_alpha", type=int, default=default.alpha)


def main(arguments: Sequence[str] | None = None) -> Evaluation:
    """Evaluate as the arguments say; the main process prints the table and writes the files."""
    chosen = parser().parse_args(arguments)
    accelerator = Accelerator()
    benchmark = chosen_benchmark(chosen)
    model = load_classifier(chosen.model, device=accelerator.device, trust_remote_code=chosen.trust_remote_code)
    evaluation = evaluate_model(
        model,
        split_named(benchmark, chosen.split),
        label_names=benchmark.label_names,
        class_counts=benchmark.class_counts if model.class_counts is None else None,
        options=evaluation_options(chosen, benchmark.record.thresholds),
        open_set=_open_set(chosen, benchmark),
        output_dir=chosen.output_dir,
        accelerator=accelerator,
        image_column=benchmark.image_column,
        label_column=benchmark.label_column,
        about={
            "model": chosen.model,
            "benchmark": chosen.benchmark,
            "split": chosen.split,
            "data": dict(benchmark.settings),
            "open_dataset": chosen.open_dataset,
        },
    )
    if accelerator.is_main_process:
        print(summary_table(evaluation.metrics))
        if chosen.compare_with is not None:
            _compare(evaluation, chosen)
        print(f"Written to {chosen.output_dir}")
    return evaluation


def evaluation_options(chosen: argparse.Namespace, thresholds: ShotThresholds) -> EvaluationOptions:
    """The options given, thresholds of the benchmark where none are."""
    return EvaluationOptions(
        thresholds=chosen_thresholds(chosen, thresholds),
        calibration_bins=chosen.calibration_bins,
        logit_adjustment=chosen.logit_adjustment,
        targets=tuple(chosen.targets),
        source_prior=chosen.source_prior,
        bootstrap=chosen.bootstrap,
        level=chosen.level,
        seed=chosen.seed,
        batch_size=chosen.batch_size,
        num_workers=chosen.num_workers,
    )


def _open_set(chosen: argparse.Namespace, benchmark: Benchmark) -> OpenSet | None:
    if chosen.open_dataset is None:
        default = parser().parse_args(["--model", "m", "--benchmark", chosen.benchmark, "--output_dir", "o"])
        useless = [n for n, value in vars(chosen).items() if n.startswith("open_") and value != getattr(default, n)]
        if useless:
            raise ValueError(f"--{', --'.join(useless)} without effect: pass --open_dataset, or leave out.")
        return None
    held_open = None if chosen.open_holdout is None else load_open_images(chosen.open_holdout)
    return OpenSet(
        load_open_images(chosen.open_dataset, chosen.open_data_dir, chosen.open_split),
        training=benchmark.train,
        holdout=split_named(benchmark, "validation") if chosen.open_use_validation else None,
        open_holdout=held_open,
        options=OpenSetOptions(
            tuple(chosen.open_scorers),
            chosen.open_threshold,
            chosen.open_holdout_recall,
            chosen.open_tail_size,
            chosen.open_alpha,
        ),
    )


def _compare(evaluation: Evaluation, chosen: argparse.Namespace) -> None:
    other = Predictions.load(chosen.compare_with)
    thresholds = ShotThresholds(**evaluation.metrics["options"]["thresholds"])
    figures = compare_predictions(evaluation.predictions, other, thresholds, level=chosen.level, seed=chosen.seed)
    print(f"\nthis checkpoint - {chosen.compare_with}\n{paired_table(figures)}")
    plain = {name: None if figure is None else asdict(figure) for name, figure in figures.items()}
    write_json(Path(chosen.output_dir) / "comparison.json", {"with": chosen.compare_with, **plain})
    theirs = Path(chosen.compare_with) / METRICS_FILE
    if theirs.is_file():
        names = ["/".join(Path(folder).parts[-2:]) for folder in (chosen.output_dir, chosen.compare_with)]
        runs = {f"this: {names[0]}": evaluation.metrics, f"other: {names[1]}": json.loads(theirs.read_text())}
        group_bars_figure(runs, Path(chosen.output_dir) / "figures" / "groups_compared")
