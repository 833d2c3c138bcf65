"""Figures for print: told apart by shade, hatch, marker and line style, never by colour; the data lie beside each."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..metrics.accuracy import ClassRow
from ..metrics.open_set import OPEN, roc_curve
from ..shots import SHOT_GROUPS
from .results import Evaluation, write_json

GROUP_MARKERS = {"many": "o", "medium": "s", "few": "^"}
HATCHES = ("", "///", "...", "xxx", "\\\\\\", "+++")
GREYS = ("0.7", "0.95", "0.45", "1.0", "0.8", "0.55")
LINES = ("-", "--", ":", "-.")
ROC_POINTS = 500


def draw_figures(evaluation: Evaluation, folder: Path) -> None:
    """All figures of one evaluation: PNG and, of the same name, JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    class_accuracy_figure(evaluation.per_class, folder / "class_accuracy")
    reliability_figure(evaluation.reliability, folder / "reliability")
    group_confusion_figure(evaluation.group_confusion, folder / "group_confusion")
    group_bars_figure({"this checkpoint": evaluation.metrics}, folder / "groups")
    for name in evaluation.metrics.get("open_set", {}):
        known = evaluation.open_columns["label"] != OPEN
        scores = evaluation.open_columns[f"score_{name}"]
        threshold = evaluation.metrics["open_set"][name].get("threshold")
        open_set_figure(scores[known], scores[~known], name, threshold, folder / f"open_set_{name}")


def class_accuracy_figure(rows: Sequence[ClassRow], path: Path) -> None:
    """Per-class accuracy over class frequency."""
    figure, (axes,) = _canvas(1)
    shown = [row for row in rows if row.accuracy is not None]
    for group, marker in GROUP_MARKERS.items():
        points = [(max(row.train_count, 0.5), row.accuracy) for row in shown if row.group == group]
        if points:
            axes.plot(*zip(*points, strict=True), marker, color="black", fillstyle="none", label=f"{group}-shot")
    axes.set(xscale="log", xlabel="training images of the class", ylabel="accuracy", ylim=(-0.03, 1.03))
    axes.legend()
    data = [{"name": r.name, "group": r.group, "train_count": r.train_count, "accuracy": r.accuracy} for r in shown]
    _save(figure, path, {"classes": data})


def group_bars_figure(runs: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Overall, many, medium and few of several runs side by side, with intervals where they were computed.

    runs: name -> content of the run's metrics.json. Thresholds must agree: other groups are not comparable.
    """
    thresholds = [run["closed_set"]["thresholds"] for run in runs.values()]
    if any(other != thresholds[0] for other in thresholds):
        raise ValueError("The runs were evaluated with different shot thresholds; evaluate them alike to compare them.")
    names = ("accuracy", *SHOT_GROUPS)
    figure, (axes,) = _canvas(1)
    width = 0.8 / len(runs)
    data = {}
    for k, (run, metrics) in enumerate(runs.items()):
        values = [metrics["closed_set"][name] for name in names]
        intervals = [metrics.get("intervals", {}).get(name) for name in names]
        data[run] = {"figures": dict(zip(names, values, strict=True)), "intervals": intervals}
        places = np.arange(len(names)) + (k - (len(runs) - 1) / 2) * width
        heights = [0.0 if value is None else value for value in values]
        axes.bar(places, heights, width, label=run, **_bar_style(k))
        for place, interval in zip(places, intervals, strict=True):
            if interval is not None:
                axes.plot([place, place], interval, color="black", linewidth=1)
    axes.set_xticks(range(len(names)), ["all", *SHOT_GROUPS])
    axes.set(ylabel="accuracy", ylim=(0, 1))
    if len(runs) > 1:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1))
    _save(figure, path, {"thresholds": thresholds[0], "runs": data})


def reliability_figure(curves: Mapping[str, Mapping[str, Sequence[Any]]], path: Path) -> None:
    """Accuracy over confidence, overall and for each shot group, with the share of images in each bin below."""
    figure, (axes, below) = _canvas(2, (3, 1))
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    markers = {"overall": "D", **GROUP_MARKERS}
    for line, (name, curve) in zip(LINES, curves.items(), strict=True):
        points = [(c, a) for c, a in zip(curve["confidence"], curve["accuracy"], strict=True) if c is not None]
        if points:
            axes.plot(*zip(*points, strict=True), line, marker=markers[name], color="black", markersize=4, label=name)
    axes.set(ylabel="accuracy", xlim=(0, 1), ylim=(-0.03, 1.03))
    axes.legend()
    edges = np.array(curves["overall"]["upper_edge"])
    count = np.array(curves["overall"]["count"])
    below.bar(edges - edges[0] / 2, count / count.sum(), edges[0], **_bar_style(1))
    below.set(xlabel="confidence", ylabel="share", xlim=(0, 1))
    _save(figure, path, dict(curves))


def group_confusion_figure(rows: Mapping[str, Mapping[str, float | None]], path: Path) -> None:
    """Where the images of each shot group end: right, or mistaken for a class of some group."""
    figure, (axes,) = _canvas(1)
    shown = {name: row for name, row in rows.items() if row["right"] is not None}
    left = np.zeros(len(shown))
    for k, column in enumerate(("right", *SHOT_GROUPS)):
        values = np.array([row[column] for row in shown.values()], dtype=float)
        label = "right" if column == "right" else f"wrong, into {column}"
        axes.barh(range(len(shown)), values, left=left, label=label, **_bar_style(k))
        left += values
    axes.set_yticks(range(len(shown)), list(shown))
    axes.invert_yaxis()
    axes.set(xlabel="share of the group's test images", xlim=(0, 1))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    _save(figure, path, dict(rows))


def open_set_figure(known: np.ndarray, opened: np.ndarray, name: str, threshold: float | None, path: Path) -> None:
    """Histograms of the score of known and open images, and the ROC curve of telling them apart."""
    figure, (histogram, roc) = _canvas(2)
    edges = np.histogram_bin_edges(np.concatenate([known, opened]), bins=40)
    data: dict[str, Any] = {"edges": edges.tolist(), "threshold": threshold}
    for kind, values, line in (("known", known, "-"), ("open", opened, "--")):
        share = np.histogram(values, edges)[0] / max(len(values), 1)
        histogram.stairs(share, edges, linestyle=line, color="black", label=kind)
        data[kind] = share.tolist()
    if threshold is not None:
        histogram.axvline(threshold, color="0.5", linestyle=":", label="threshold")
    histogram.set(xlabel=f"score ({name})", ylabel="share of images")
    histogram.legend()
    _, false_rate, true_rate = roc_curve(known, opened)
    kept = np.unique(np.linspace(0, len(true_rate) - 1, ROC_POINTS).astype(int))
    data["roc"] = {"open_accepted": false_rate[kept].tolist(), "known_accepted": true_rate[kept].tolist()}
    roc.plot([0, *false_rate[kept]], [0, *true_rate[kept]], color="black")
    roc.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    roc.set(xlabel="open images accepted", ylabel="known images accepted", xlim=(0, 1), ylim=(0, 1.02))
    _save(figure, path, data)


def _bar_style(k: int) -> dict[str, Any]:
    return {"color": GREYS[k % len(GREYS)], "hatch": HATCHES[k % len(HATCHES)], "edgecolor": "black", "linewidth": 0.6}


def _canvas(rows: int, heights: tuple[int, ...] | None = None) -> tuple[Figure, list[Axes]]:
    """A figure of its own, without pyplot, whose backend and registry belong to the caller's program."""
    figure = Figure(figsize=(5.5, 3.6 if rows == 1 else 6.0), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, 1, squeeze=False, height_ratios=heights)
    return figure, list(grid[:, 0])


def _save(figure: Figure, path: Path, data: Mapping[str, Any]) -> None:
    figure.savefig(path.with_suffix(".png"), dpi=150)
    write_json(path.with_suffix(".json"), data)
