"""Several methods with several seeds on one benchmark: mean ± standard deviation, the gain of each class, the card."""

from __future__ import annotations

import csv
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..hub import RunRecord, device_name, package_commit, write_card
from ..shots import SHOT_GROUPS

COLUMNS = {"accuracy": "overall", **{name: name for name in SHOT_GROUPS}}
STYLES = (("o", "#000000"), ("s", "#0072b2"), ("^", "#d55e00"), ("D", "#009e73"))


@dataclass(frozen=True)
class Row:
    """One method with one seed, read from the folder of an evaluated model.

    figures: the closed-set figures as fractions of 1. classes: name, training count and accuracy of each class.
    """

    method: str
    seed: int
    figures: Mapping[str, float | None]
    classes: tuple[tuple[str, int, float], ...]

    @staticmethod
    def read(method: str, seed: int, folder: Path) -> Row:
        """The row of an evaluation that was saved in ``folder`` (metrics.json, per_class.csv)."""
        figures = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["closed_set"]
        with (folder / "per_class.csv").open(newline="", encoding="utf-8") as file:
            classes = tuple(
                (line["name"], int(line["train_count"]), float(line["accuracy"] or "nan"))
                for line in csv.DictReader(file)
            )
        return Row(method, seed, {name: figures[name] for name in COLUMNS}, classes)


def by_method(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each method, methods in the order of their first row."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.method, []).append(row)
    return found


def spread(values: Sequence[float | None]) -> tuple[float, float] | None:
    """Mean and sample standard deviation (0 for one value); None where a group has no class."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    return statistics.mean(known), statistics.stdev(known) if len(known) > 1 else 0.0


def comparison_table(rows: Sequence[Row]) -> str:
    """Methods down, overall/many/medium/few across, mean ± standard deviation over the seeds in per cent."""
    methods = by_method(rows)
    width = max(map(len, methods))
    lines = [" " * width + "".join(f"{title:>14}" for title in COLUMNS.values())]
    for method, own in methods.items():
        cells = (spread([row.figures[name] for row in own]) for name in COLUMNS)
        shown = ("-" if cell is None else f"{100 * cell[0]:.1f} ± {100 * cell[1]:.1f}" for cell in cells)
        lines.append(f"{method:<{width}}" + "".join(f"{cell:>14}" for cell in shown))
    return "\n".join(lines)


def save_comparison(rows: Sequence[Row], file: Path) -> None:
    """Every row with seed, commit and processor, as JSON."""
    content = {
        "commit": package_commit(),
        "device": device_name("cpu"),
        "checkpoint": "last epoch",
        "rows": [{"method": row.method, "seed": row.seed, **row.figures} for row in rows],
    }
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def class_gain_figure(rows: Sequence[Row], baseline: str, file: Path) -> None:
    """Above: accuracy of each class minus the baseline's, mean and standard deviation over seeds; below: its count."""
    methods = by_method(rows)
    names, counts = [name for name, _, _ in rows[0].classes], [count for _, count, _ in rows[0].classes]
    order = np.argsort(counts)[::-1]
    figure = Figure(figsize=(7.5, 5.0), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    above.axhline(0, color="0.6", linewidth=1)
    accuracies = {method: np.array([[a for _, _, a in row.classes] for row in own]) for method, own in methods.items()}
    others = [method for method in methods if method != baseline]
    for k, method in enumerate(others):
        gain = 100 * (accuracies[method] - accuracies[baseline])[:, order]
        error = gain.std(axis=0, ddof=1) if len(gain) > 1 else None
        marker, colour = STYLES[k % len(STYLES)]
        places = np.arange(len(order)) + 0.18 * (k - (len(others) - 1) / 2)
        above.errorbar(places, gain.mean(axis=0), error, fmt=marker, color=colour, capsize=2, label=method)
    above.set(ylabel=f"accuracy minus that of {baseline}\n(points)")
    above.legend(fontsize="small")
    below.bar(np.arange(len(order)), np.array(counts)[order], color="0.6")
    below.set(yscale="log", ylabel="training images", xlabel="class, most frequent first")
    below.set_xticks(range(len(order)), [names[i] for i in order])
    figure.savefig(file, dpi=150)


def describe_on_card(model: Path, rows: Sequence[Row]) -> None:
    """Adds a line for each method to the card of a model folder: the figures of all seeds belong beside one run's."""
    record: Any = RunRecord.load(model)
    seeds = sorted({row.seed for row in rows})
    notes = [
        f"{method}, mean ± standard deviation of seeds {', '.join(map(str, seeds))}: "
        + ", ".join(
            f"{title} {100 * cell[0]:.1f} ± {100 * cell[1]:.1f} %"
            for name, title in COLUMNS.items()
            if (cell := spread([row.figures[name] for row in own])) is not None
        )
        + "."
        for method, own in by_method(rows).items()
    ]
    write_card(model, replace(record, model=replace(record.model, notes=(*record.model.notes, *notes))))
