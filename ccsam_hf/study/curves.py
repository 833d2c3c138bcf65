"""Figures of a grid: its score along a swept option, and how the classes' radii were ordered while training."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .arms import Arm
from .figures import Row
from .grid import Grid

Rows = Mapping[tuple[str, str, int], Row]
ORDER = {
    "radius_rank_correlation": "rank correlation of $r_c$ with $n_c$",
    "radius_few_over_many": "mean $r_c$, few over many",
}


def sweep_points(grid: Grid, benchmark: Arm, family: str, rows: Rows) -> list[tuple[float, float, float]]:
    """(value, mean, standard deviation over seeds; 0 of one) in % of the finished arms of a sweep, by value."""
    points = []
    for arm in grid.methods:
        if arm.family == family and arm.value is not None:
            scores = _scores(grid, benchmark.name, arm.name, rows)
            if scores:
                spread = statistics.stdev(scores) if len(scores) > 1 else 0.0
                points.append((arm.value, statistics.mean(scores), spread))
    return sorted(points)


def _scores(grid: Grid, benchmark: str, method: str, rows: Rows) -> list[float]:
    found = [rows[benchmark, method, seed] for seed in grid.seeds if (benchmark, method, seed) in rows]
    return [100 * row[grid.score] for row in found if row[grid.score] is not None]


def draw_sweeps(grid: Grid, rows: Rows, path: Path) -> None:
    """One panel for each benchmark: a line for each sweep, the other methods as level lines."""
    figure = Figure(figsize=(4.6 * len(grid.benchmarks), 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    families = list(dict.fromkeys(arm.family for arm in grid.methods if arm.family))
    options = list(dict.fromkeys(arm.option for arm in grid.methods if arm.option))
    for axes, benchmark in zip(
        figure.subplots(1, len(grid.benchmarks), squeeze=False)[0], grid.benchmarks, strict=True
    ):
        for family in families:
            points = sweep_points(grid, benchmark, family, rows)
            if points:
                x, y, spread = zip(*points, strict=True)
                axes.errorbar(x, y, yerr=spread, marker="o", ms=3, capsize=2, label=family)
        for place, arm in enumerate(arm for arm in grid.methods if not arm.family):
            scores = _scores(grid, benchmark.name, arm.name, rows)
            if scores:
                style = ("--", ":", "-.")[place % 3]
                axes.axhline(statistics.mean(scores), color="0.4", ls=style, lw=1, label=arm.name)
        axes.set(title=benchmark.name, xlabel=", ".join(options), ylabel=f"{grid.score.replace('_', ' ')} (%)")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=7)
    figure.savefig(path, dpi=150)


def order_curve(grid: Grid, benchmark: Arm, method: Arm, rows: Rows, figure: str) -> list[tuple[float, float]]:
    """(epoch, mean over seeds) of a logged figure, at the epochs that every finished seed has."""
    logs = [
        rows[benchmark.name, method.name, seed].get("log") or []
        for seed in grid.seeds
        if (benchmark.name, method.name, seed) in rows
    ]
    by_epoch: dict[float, list[float]] = {}
    for log in logs:
        for entry in log:
            if figure in entry:
                by_epoch.setdefault(float(entry["epoch"]), []).append(float(entry[figure]))
    return [(epoch, statistics.mean(v)) for epoch, v in sorted(by_epoch.items()) if len(v) == len(logs)]


def draw_order(grid: Grid, rows: Rows, path: Path) -> None:
    """Does "rarer class, larger radius" hold while training? Nothing is drawn where no run has logged radii."""
    curves: list[tuple[Arm, str, Arm, list[tuple[float, float]]]] = [
        (benchmark, figure, method, curve)
        for benchmark in grid.benchmarks
        for figure in ORDER
        for method in grid.methods
        if (curve := order_curve(grid, benchmark, method, rows, figure))
    ]
    if not curves:
        return
    drawn = Figure(figsize=(4.6 * len(grid.benchmarks), 6), layout="constrained")
    FigureCanvasAgg(drawn)
    panels: Any = drawn.subplots(2, len(grid.benchmarks), squeeze=False, sharex="col")
    for benchmark, name, method, curve in curves:
        axes = panels[list(ORDER).index(name)][grid.benchmarks.index(benchmark)]
        colour = f"C{grid.methods.index(method) % 10}"
        style = ("-", "--", ":")[grid.methods.index(method) // 10 % 3]
        axes.plot(*zip(*curve, strict=True), style, color=colour, lw=1.2, label=method.title or method.name)
    for column, benchmark in enumerate(grid.benchmarks):
        upper, lower = panels[0][column], panels[1][column]
        upper.axhline(0, color="0.6", lw=0.8)
        lower.axhline(1, color="0.6", lw=0.8)
        lower.set_yscale("log")
        upper.set(title=benchmark.name, ylabel=ORDER["radius_rank_correlation"])
        lower.set(xlabel="epoch", ylabel=ORDER["radius_few_over_many"])
    if panels[1][0].get_legend_handles_labels()[0]:
        panels[1][0].legend(fontsize=6)
    drawn.savefig(path, dpi=150)
