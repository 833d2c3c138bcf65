"""What an evaluation leaves behind: figures, per-image predictions, their files, printed tables, comparisons."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import Tensor

from ..metrics.accuracy import ClassRow
from ..metrics.label_shift import accuracy_under, target_distribution
from ..metrics.streaming import StreamingMetrics
from ..metrics.uncertainty import PairedFigure, bootstrap_intervals, paired_test
from ..shots import SHOT_GROUPS, ShotThresholds
from .runner import Columns, EvaluationOptions

METRICS_FILE = "metrics.json"
PER_CLASS_FILE = "per_class.csv"
PREDICTIONS_FILE = "predictions.safetensors"


ROWS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    **{name: f"{name}-shot" for name in SHOT_GROUPS},
    "harmonic_mean": "harmonic mean",
    "worst_decile": "worst decile",
    "macro_f1": "macro F1",
}


@dataclass(frozen=True)
class Predictions:
    """Per-image columns of one checkpoint on one split, in the split's order, and what they refer to.

    columns: label, prediction, confidence, rank, nll, brier [N], and prediction_TARGET for shifted test sets.
    """

    columns: dict[str, np.ndarray]
    class_counts: list[int]
    label_names: list[str]

    def save(self, path: Path) -> None:
        """Write as safetensors; names and counts go into the header, under one key so that its bytes are repeatable."""
        about = json.dumps({"class_counts": self.class_counts, "label_names": self.label_names})
        columns = {name: np.ascontiguousarray(values) for name, values in self.columns.items()}
        save_file(columns, path, {"ccsam_hf": about})

    @staticmethod
    def load(path: str | Path) -> Predictions:
        """Read a file that `save` wrote, or the evaluation folder that holds it."""
        file = Path(path) / PREDICTIONS_FILE if Path(path).is_dir() else Path(path)
        if not file.is_file():
            raise ValueError(f"No saved predictions at {file}; pass the output folder of an evaluation.")
        with safe_open(file, framework="np") as stored:
            about = json.loads(stored.metadata()["ccsam_hf"])
            columns = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        return Predictions(columns, about["class_counts"], about["label_names"])


@dataclass(frozen=True)
class Evaluation:
    """The whole picture of a checkpoint on a split.

    metrics: plain values as written to metrics.json. reliability, group_confusion: what the figures show.
    open_columns: label (-1: open), prediction and score_NAME of known and open images; empty without an open set.
    comparison: paired differences to another evaluation, where one was asked for.
    """

    metrics: dict[str, Any]
    per_class: list[ClassRow]
    predictions: Predictions
    reliability: dict[str, dict[str, list[Any]]]
    group_confusion: dict[str, dict[str, float | None]]
    open_columns: dict[str, np.ndarray] = field(default_factory=dict)
    comparison: dict[str, PairedFigure | None] = field(default_factory=dict)

    def save(self, folder: str | Path) -> None:
        """Write metrics.json, per_class.csv and predictions.safetensors; figures are `draw_figures`'s."""
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        write_json(target / METRICS_FILE, self.metrics)
        write_rows(target / PER_CLASS_FILE, self.per_class)
        self.predictions.save(target / PREDICTIONS_FILE)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def write_rows(path: Path, rows: list[ClassRow]) -> None:
    """One line a class; undefined figures are empty cells."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [column.name for column in fields(ClassRow)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def closed_set_report(
    metrics: StreamingMetrics, columns: Columns, counts: Tensor, options: EvaluationOptions
) -> dict[str, Any]:
    """The sections "closed_set", "intervals" and "label_shift" of metrics.json."""
    report: dict[str, Any] = {"closed_set": metrics.compute()}
    if options.bootstrap:
        intervals = bootstrap_intervals(
            columns["prediction"],
            columns["label"],
            counts,
            options.thresholds,
            options.bootstrap,
            options.level,
            options.seed,
        )
        report["intervals"] = {"replicates": options.bootstrap, "level": options.level, **intervals}
    if options.targets:
        report["label_shift"] = {name: shifted_figures(name, columns, counts) for name in options.targets}
    return report


def shifted_figures(name: str, columns: Columns, counts: Tensor) -> dict[str, float | None]:
    """Expected accuracy under a target distribution: predictions as they are, and under the target's prior."""
    target = target_distribution(name, counts)
    labels = columns["label"]
    images = np.bincount(labels, minlength=len(counts))

    def accuracy(predictions: np.ndarray | None) -> float | None:
        if predictions is None:
            return None
        return accuracy_under(np.bincount(labels[predictions == labels], minlength=len(counts)), images, target)

    return {
        "accuracy": accuracy(columns["prediction"]),
        "accuracy_with_target_prior": accuracy(columns.get(f"prediction_{name}")),
    }


def option_record(options: EvaluationOptions) -> dict[str, Any]:
    """The options that decide figures, without those that only decide how they are computed."""
    record = asdict(options)
    for name in ("batch_size", "num_workers", "progress"):
        del record[name]
    return record | {"thresholds": options.thresholds.describe(), "targets": list(options.targets)}


def compare_predictions(
    first: Predictions,
    second: Predictions,
    thresholds: ShotThresholds | None = None,
    replicates: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, PairedFigure | None]:
    """Difference first - second of each accuracy with interval and p-value, see `paired_test`.

    Raises:
        ValueError: the predictions are not of the same images in the same order, or of other classes or counts.
    """
    if first.label_names != second.label_names or first.class_counts != second.class_counts:
        raise ValueError(
            "The two checkpoints have other label names or training counts, so their predictions cannot be paired; "
            "compare checkpoints of one benchmark."
        )
    labels = first.columns["label"]
    if labels.tolist() != second.columns["label"].tolist():
        raise ValueError(
            f"The two predictions are of different images ({len(labels)} and {len(second.columns['label'])}, or in "
            "another order); evaluate both checkpoints on the same split."
        )
    answers = (first.columns["prediction"], second.columns["prediction"])
    return paired_test(*answers, labels, first.class_counts, thresholds, replicates, level, seed)


def summary_table(metrics: Mapping[str, Any]) -> str:
    """The closed-set, label-shift and open-set figures of metrics.json in a screenful."""
    closed = metrics["closed_set"]
    rules, sizes = closed["thresholds"], closed["group_sizes"]
    signs = (">", "<") if rules["boundaries"] == "strict" else (">=", "<=")
    lines = [
        f"{closed['images']} images, {closed['classes']} classes; training counts: many {signs[0]} {rules['many']} "
        f"({sizes['many']}), few {signs[1]} {rules['few']} ({sizes['few']}), medium the rest ({sizes['medium']})"
    ]
    for name, title in ROWS.items():
        interval = metrics.get("intervals", {}).get(name)
        lines.append(f"{title:<20}{percent(closed[name])}{_between(interval)}")
    if closed["top5"] is not None:
        lines.append(f"{'top-5 accuracy':<20}{percent(closed['top5']['accuracy'])}")
    calibration = closed["calibration"]["overall"]
    lines.append(f"{'ECE':<20}{percent(calibration['ece'])}   NLL {calibration['nll']:.4f}")
    for name, shifted in metrics.get("label_shift", {}).items():
        with_prior = percent(shifted["accuracy_with_target_prior"])
        lines.append(f"{name:<20}{percent(shifted['accuracy'])}   with the target's prior {with_prior}")
    for name, figures in metrics.get("open_set", {}).items():
        lines.append(f"{'open: ' + name:<20}{_open_line(figures)}")
    return "\n".join(lines)


def paired_table(figures: Mapping[str, PairedFigure | None]) -> str:
    """Differences between two checkpoints, in percentage points."""
    lines = [f"{'difference':<20}{'points':>8}   p-value"]
    for name, figure in figures.items():
        if figure is not None:
            between = _between(figure.interval)
            lines.append(f"{ROWS[name]:<20}{100 * figure.difference:>8.2f}   {figure.p_value:.4f}{between}")
    return "\n".join(lines)


def percent(value: float | None) -> str:
    return f"{'-':>8}" if value is None else f"{100 * value:>7.2f}%"


def _between(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"   [{100 * interval[0]:.2f}, {100 * interval[1]:.2f}]"


def _open_line(figures: Mapping[str, Any]) -> str:
    found = f"AUROC {percent(figures['auroc']).strip()}, FPR at 95 % TPR {percent(figures['fpr_at_95_tpr']).strip()}"
    if "threshold" not in figures:
        return f"{found}; {figures['threshold_rule']}"
    before, never = figures["f_measure_before_2020"], figures["f_measure_never_rejecting"]
    return (
        f"F {figures['f_measure']:.4f} (before 2020 {before:.4f}, never rejecting {never:.4f}) at "
        f"{figures['threshold']:.4g}, {figures['threshold_rule']}; {found}"
    )
