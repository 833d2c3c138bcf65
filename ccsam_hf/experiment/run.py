"""One benchmark, from its images to a model folder with the figures that belong to it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import TimmWrapperForImageClassification, set_seed
from transformers.trainer_utils import get_last_checkpoint

from ..data import Benchmark
from ..evaluation import Evaluation, EvaluationOptions, evaluate_model, group_bars_figure
from ..evaluation.figures import draw_figures
from ..models import create_model
from ..training import (
    PERTURBATION_OPTIONS,
    CCSAMTrainer,
    CCSAMTrainingArguments,
    ClassifierTrainer,
    ClassifierTrainingArguments,
    LongTailedTrainer,
    default_options,
)
from .parsing import Settings, parse_settings
from .report import distribution_line, results_table
from .views import evaluation_view, training_view

CONTROL, STAGE_1, STAGE_2 = "CE", "stage 1", "stage 2"


def main(defaults: Mapping[str, Mapping[str, Any]], argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Parse a recipe's command line and run it; what ``recipes/*.py`` call."""
    return run_experiment(parse_settings(defaults, sys.argv[1:] if argv is None else argv))


def run_experiment(settings: Settings) -> dict[str, Any]:
    """Control (if asked for), stage 1 and stage 2 on one benchmark; returns the figures of each by its name.

    ``output_dir`` receives a folder for each stage (its checkpoints, and the network it ended with as ``model/``),
    ``model/`` (the last stage's network with its preprocessing, loadable by timm, transformers and
    `load_classifier`, beside its metrics, per-class CSV and figures), ``metrics.json`` and ``groups.png``, which shows
    the stages side by side. Every figure is that of the last epoch. With ``--resume_from_checkpoint true`` each stage goes on from its last checkpoint.
    """
    folder = Path(str(settings.stage1.output_dir))
    data = settings.benchmark.load()
    thresholds = data.record.thresholds
    settings = _with_thresholds(settings, data)
    model = new_model(settings, data)
    main_process = settings.stage1.should_save
    if main_process:
        print(f"{data.record.title}: {distribution_line(data.class_counts, thresholds.masks(data.class_counts))}")
    evaluations: dict[str, Evaluation] = {}
    times: dict[str, float] = {}

    def stage(name: str, trainer: LongTailedTrainer) -> None:
        started = time.perf_counter()
        _train(trainer)
        times[name] = time.perf_counter() - started
        evaluations[name] = _evaluate(trainer, settings, data)
        if main_process:
            trainer.model.save_pretrained(Path(str(trainer.args.output_dir)) / "model")

    if settings.benchmark.control:
        stage(CONTROL, _stage1_trainer(settings, data, new_model(settings, data), _as_control(settings.stage1)))
    arguments = replace(settings.stage1, output_dir=str(folder / "stage1"))
    trainer: LongTailedTrainer = _stage1_trainer(settings, data, model, arguments)
    stage(STAGE_1, trainer)
    if settings.benchmark.second_stage:
        trainer = _stage2_trainer(settings, data, model)
        stage(STAGE_2, trainer)
    if main_process:
        _save(trainer, evaluations, times, settings, data, folder)
    trainer.accelerator.wait_for_everyone()
    return {name: evaluation.metrics["closed_set"] for name, evaluation in evaluations.items()}


def new_model(settings: Settings, data: Benchmark) -> TimmWrapperForImageClassification:
    """The network of the run, initialised by its seed and told how its images are prepared."""
    set_seed(settings.stage1.seed)
    record = data.record
    return create_model(
        settings.benchmark.model,
        data.num_classes,
        label_names=data.label_names,
        input_size=record.input_size,
        mean=record.mean,
        std=record.std,
        crop_pct=record.crop_pct,
        interpolation=record.interpolation,
        pretrained=settings.benchmark.pretrained,
    )


def _with_thresholds(settings: Settings, data: Benchmark) -> Settings:
    """The benchmark's own shot thresholds, where the user has not set others."""
    wanted = data.record.thresholds
    own: dict[str, Any] = {"many_shot": wanted.many, "few_shot": wanted.few, "shot_boundaries": wanted.boundaries}
    usual = default_options(settings.stage1, list(own))
    changed = {name: value for name, value in own.items() if getattr(settings.stage1, name) == usual[name]}
    return replace(settings, stage1=replace(settings.stage1, **changed), stage2=replace(settings.stage2, **changed))


def _as_control(args: CCSAMTrainingArguments) -> CCSAMTrainingArguments:
    """The same training without the perturbation."""
    plain = default_options(args, PERTURBATION_OPTIONS)
    folder = str(Path(str(args.output_dir)) / "control")
    return replace(args, **plain, perturbation="none", output_dir=folder, push_to_hub=False)


def _stage1_trainer(
    settings: Settings, data: Benchmark, model: TimmWrapperForImageClassification, args: CCSAMTrainingArguments
) -> CCSAMTrainer:
    return CCSAMTrainer(
        model=model,
        args=args,
        train_dataset=training_view(data, settings.benchmark.augmentation, args.seed),
        eval_dataset=evaluation_view(data, settings.benchmark.holdout),
        class_counts=data.class_counts,
    )


def _stage2_trainer(settings: Settings, data: Benchmark, model: TimmWrapperForImageClassification) -> ClassifierTrainer:
    args: ClassifierTrainingArguments = settings.stage2
    return ClassifierTrainer(
        model=model,
        args=args,
        train_dataset=training_view(data, settings.benchmark.augmentation, args.seed),
        eval_dataset=evaluation_view(data, settings.benchmark.holdout),
        class_counts=data.class_counts,
    )


def _train(trainer: LongTailedTrainer) -> None:
    wanted = str(trainer.args.resume_from_checkpoint or "").lower() not in ("", "false", "none")
    folder = Path(trainer.args.output_dir)
    checkpoint = get_last_checkpoint(str(folder)) if wanted and folder.is_dir() else None
    trainer.train(resume_from_checkpoint=checkpoint)


def _evaluate(trainer: LongTailedTrainer, settings: Settings, data: Benchmark) -> Evaluation:
    args = trainer.args
    return evaluate_model(
        trainer.model,
        trainer.eval_dataset,
        label_names=data.label_names,
        class_counts=data.class_counts,
        accelerator=trainer.accelerator,
        options=EvaluationOptions(
            thresholds=args.shots(), batch_size=args.per_device_eval_batch_size, progress=not args.disable_tqdm
        ),
    )


def _save(
    trainer: LongTailedTrainer,
    evaluations: Mapping[str, Evaluation],
    times: Mapping[str, float],
    settings: Settings,
    data: Benchmark,
    folder: Path,
) -> None:
    last = list(evaluations.values())[-1]
    trainer.model.save_pretrained(folder / "model")
    last.save(folder / "model")
    draw_figures(last, folder / "model" / "figures")
    results = {name: evaluation.metrics["closed_set"] for name, evaluation in evaluations.items()}
    group_bars_figure({name: evaluation.metrics for name, evaluation in evaluations.items()}, folder / "groups")
    content = {
        "benchmark": data.record.name,
        "settings": dict(data.settings),
        "evaluated_on": "hold-out of the training set" if settings.benchmark.holdout else "test set",
        "checkpoint": "last epoch",
        "seed": settings.stage1.seed,
        "seconds": {name: round(seconds, 1) for name, seconds in times.items()},
        "results": results,
    }
    (folder / "metrics.json").write_text(json.dumps(content, indent=2) + "\n")
    print(f"\n{results_table(results)}\n")
    print(f"Model: {folder / 'model'}   figures: {folder / 'groups.png'}, {folder / 'model' / 'figures'}")
