"""What a run leaves when all its stages are done: the model folder with its card, the figures, and their JSON."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..data import Benchmark
from ..evaluation import group_bars_figure
from ..hub import (
    RunRecord,
    citations,
    data_record,
    model_record,
    package_commit,
    push_to_hub,
    stage_record,
    versions,
    write_card,
)
from ..losses import build_loss
from ..models import fold_classifier, installed_head, load_with_head
from ..models.replace import SUFFIX
from .paper import paper_row
from .parsing import Settings
from .report import evaluated_on, results_table
from .stages import Result, Stage


def save_outputs(settings: Settings, data: Benchmark, stages: Mapping[str, tuple[Stage, Result]]) -> None:
    """``model/`` (the last stage's, with card), ``metrics.json`` and ``groups.png``; prints the table, then publishes.

    ``stages``: by the name that tables and figures show.
    """
    folder, holdout = settings.folder, settings.benchmark.holdout
    last, ended = list(stages.values())[-1]
    shutil.copytree(last.model_folder, folder / "model", dirs_exist_ok=True)
    notes = fold_published(folder / "model", _logit_scale(last, data))
    results = {name: result.metrics["closed_set"] for name, (_, result) in stages.items()}
    suffix = " (hold-out)" if holdout else ""
    runs = {f"{name}{suffix}": result.metrics for name, (_, result) in stages.items()}
    group_bars_figure(runs, folder / "groups")
    content = {
        "benchmark": data.record.name,
        "settings": dict(data.settings),
        "evaluated_on": evaluated_on(data, holdout),
        "checkpoint": "last epoch",
        "seed": settings.stage1.seed,
        "device": ended.device,
        "commit": package_commit(),
        "seconds": {name: round(result.seconds, 1) for name, (_, result) in stages.items()},
        "resumed_from": {name: result.resumed_from for name, (_, result) in stages.items()},
        "results": results,
    }
    (folder / "metrics.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    write_card(folder / "model", run_record(settings, data, stages, notes))
    print(f"\nTop-1 accuracy in % after the last epoch, on {evaluated_on(data, holdout)}:\n{results_table(results)}\n")
    print(f"Model: {folder / 'model'} (card: README.md, figures: figures/)   stages side by side: {folder}/groups.png")
    _publish(settings)


def fold_published(folder: Path, logit_scale: float) -> tuple[str, ...]:
    """Fold a replaced classifier of the model in ``folder`` into one linear layer where that keeps its predictions, so
    that it loads without this package; what the card has to say of it. The stage's own folder keeps the classifier."""
    if not json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"].endswith(SUFFIX):
        return ()
    model = load_with_head(folder)
    found = installed_head(model)
    if found is None or found[1].preserved is None:
        return ()
    folded = fold_classifier(model, logit_scale)
    model.save_pretrained(folder)
    note = f"The {folded.kind} classifier is folded into one linear layer, with equal {folded.preserved}."
    if folded.preserved == "predictions":
        note += " Its confidences differ: the calibration figures are those of the classifier as trained."
    return (note,)


def _logit_scale(stage: Stage, data: Benchmark) -> float:
    args: Any = stage.args
    return build_loss(args.loss, data.class_counts, data.num_classes, **(args.loss_args or {})).logit_scale


def run_record(
    settings: Settings, data: Benchmark, stages: Mapping[str, tuple[Stage, Result]], notes: tuple[str, ...] = ()
) -> RunRecord:
    """What the model card tells of the run."""
    last, result = list(stages.values())[-1]
    args: Any = settings.stage1
    paper = paper_row(settings, data)
    records = []
    for name, (stage, found) in stages.items():
        method = {"control": f"{args.loss}, unperturbed", "stage1": f"{args.loss} with {args.perturbation}"}
        record = stage_record(
            stage.role,
            method.get(stage.role, f"classifier, {getattr(stage.args, 'rule', name)}"),
            stage.args,
            metrics=found.metrics,
            paper=paper.fractions() if paper is not None and stage.role == "stage2" else None,
            wall_time_s=found.seconds if found.resumed_from is None else None,
            log_history=found.log or (),
        )
        records.append(record)
    whole = all(found.resumed_from is None for _, found in stages.values())
    return RunRecord(
        model_record(settings.folder / "model", f"{settings.benchmark.model} on {data.record.title}", notes=notes),
        data_record(data, args.shots().describe(), holdout=settings.benchmark.holdout),
        tuple(records),
        published=last.role,
        seed=args.seed,
        commit=package_commit(),
        versions=versions(),
        device=result.device,
        wall_time_s=sum(found.seconds for _, found in stages.values()) if whole else None,
        command=settings.command,
        date=datetime.now(UTC).date().isoformat(),
        paper=None if paper is None else paper.source,
        citations=citations(data=data, losses=list(dict.fromkeys([args.loss, settings.stage2.loss]))),
    )


def _publish(settings: Settings) -> None:
    args = settings.stage1
    if args.push_to_hub and args.hub_model_id:
        done = push_to_hub(
            settings.folder / "model",
            args.hub_model_id,
            private=args.hub_private_repo is not False,
            revision=args.hub_revision,
            token=args.hub_token,
        )
        print(f"Published: {done.commit_url}")
