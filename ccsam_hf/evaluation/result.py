"""What an evaluation leaves behind, and the files it is written to."""

import csv
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from ccsam_hf.metrics.per_class import ClassRow

METRICS_FILE = "metrics.json"
PER_CLASS_FILE = "per_class.csv"
PREDICTIONS_FILE = "predictions.safetensors"


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
    def load(path: str | Path) -> "Predictions":
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
    """

    metrics: dict[str, Any]
    per_class: list[ClassRow]
    predictions: Predictions
    reliability: dict[str, dict[str, list[Any]]]
    group_confusion: dict[str, dict[str, float | None]]
    open_columns: dict[str, np.ndarray] = field(default_factory=dict)

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
