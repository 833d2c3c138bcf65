"""Pictures from plain numbers: readable in black and white."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

Results = Mapping[str, dict[str, Any]]
# Told apart by line, marker and lightness, not by hue alone.
STYLES: dict[str, dict[str, Any]] = {
    "all": {"color": "black", "linestyle": "-", "marker": "o"},
    "many": {"color": "#08519c", "linestyle": "--", "marker": "s"},
    "medium": {"color": "#238b45", "linestyle": "-.", "marker": "^"},
    "few": {"color": "#d94801", "linestyle": ":", "marker": "D"},
}
RANGE_TITLES = {"global": "global range", "local": "local range"}


def numbers(values: Any) -> np.ndarray:
    """JSON numbers as float64, null as NaN."""
    return np.array(values, dtype=object).astype(float) if np.size(values) else np.zeros(0)


def grid_of_axes(
    rows: int, columns: int, width: float = 4.2, height: float = 3.2, **options: Any
) -> tuple[Figure, Any]:
    """A figure with rows x columns axes, [rows, columns]."""
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def save(figure: Figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    return path


def noise_figure(results: Results, path: Path) -> Path:
    """Losses over the global range, rises over the local one; mean over directions with a band of one deviation.

    Columns are checkpoints. Small rises would vanish beside the distances between the groups' losses.
    """
    figure, axes = grid_of_axes(2, len(results), sharey="row")
    for column, (label, result) in enumerate(results.items()):
        for row, (name, title) in enumerate(RANGE_TITLES.items()):
            axis, ratios = axes[row, column], numbers(result["ratios"][name])
            for group, curves in result["losses"][name].items():
                values = numbers(curves)
                values = values if name == "global" else values - values[:1]
                mean, deviation = values.mean(1), values.std(1)
                axis.plot(ratios, mean, label=group, markevery=max(1, len(ratios) // 6), markersize=4, **STYLES[group])
                if values.shape[1] > 1:
                    color = STYLES[group]["color"]
                    axis.fill_between(ratios, mean - deviation, mean + deviation, color=color, alpha=0.15, linewidth=0)
            axis.set(title=f"{label}, {title}", xlabel="‖ε‖ / ‖θ‖")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=len(STYLES), fontsize=9)
    axes[0, 0].set_ylabel("cross-entropy")
    axes[1, 0].set_ylabel("rise of the cross-entropy")
    _logarithmic_if_wide(axes[0, 0], [result["losses"]["global"] for result in results.values()])
    return save(figure, path)


def _logarithmic_if_wide(axis: Axes, curves: list[dict[str, Any]]) -> None:
    """A logarithmic axis where losses span more than a factor of 50."""
    values = np.concatenate([numbers(values).ravel() for curve in curves for values in curve.values()])
    values = values[np.isfinite(values) & (values > 0)]
    if len(values) and values.max() > 50 * values.min():
        axis.set_yscale("log")


def contour_figure(results: Results, path: Path) -> Path:
    """Rows: overall, head, tail; columns: checkpoints. Levels are shared by a row, masked points are left white."""
    rows = max((list(result["losses"]) for result in results.values()), key=len)
    figure, axes = grid_of_axes(len(rows), len(results), 4.0, 3.6)
    for row, group in enumerate(rows):
        levels = _levels([result["losses"][group] for result in results.values() if group in result["losses"]])
        for column, (label, result) in enumerate(results.items()):
            axis = axes[row, column]
            axis.set_title(f"{label}: {group}", fontsize=10)
            if group not in result["losses"]:
                axis.text(0.5, 0.5, "no such classes", ha="center", transform=axis.transAxes)
                continue
            surface, (first, second) = _surface(result["losses"][group]), map(numbers, result["axes"])
            shades = {"cmap": "Greys", "alpha": 0.6, "norm": LogNorm(levels[0], levels[-1] * 10)}
            axis.contourf(first, second, surface.T, levels=levels, extend="both", **shades)
            lines = axis.contour(first, second, surface.T, levels=levels, colors="black", linewidths=0.7)
            axis.clabel(lines, lines.levels[::2], fontsize=7, fmt="%.3g")
            if "path" in result:
                steps = numbers(result["path"])
                axis.plot(*steps.T, color="white", linewidth=3.5)
                axis.plot(*steps.T, color="#cb181d", marker="o", markersize=4, linewidth=1.5)
            axis.plot(0, 0, marker="+", color="black", markersize=11, markeredgewidth=2)
    return save(figure, path)


def _surface(values: Any) -> np.ndarray:
    return np.ma.masked_invalid(numbers(values))


def _levels(surfaces: list[Any]) -> np.ndarray:
    """12 levels, evenly spaced in the logarithm, over the finite losses."""
    values = np.concatenate([numbers(surface).ravel() for surface in surfaces])
    values = values[np.isfinite(values)]
    if not len(values) or values.max() <= values.min():
        return np.array([0.5, 1.0])
    low = max(values.min(), values.max() * 1e-5, 1e-12)
    return np.geomspace(low, max(values.max(), 2 * low), 12)


def surface_figure(results: Results, path: Path) -> Path:
    """The same planes as surfaces of log10 loss, with the same height axis for each row."""
    rows = max((list(result["losses"]) for result in results.values()), key=len)
    figure, axes = grid_of_axes(len(rows), len(results), 4.2, 3.8, subplot_kw={"projection": "3d"})
    for row, group in enumerate(rows):
        present = {label: result for label, result in results.items() if group in result["losses"]}
        levels = np.log10(_levels([result["losses"][group] for result in present.values()]))
        for column, label in enumerate(results):
            axis = axes[row, column]
            axis.set_title(f"{label}: {group}", fontsize=10)
            if label not in present:
                continue
            first, second = np.meshgrid(*map(numbers, present[label]["axes"]), indexing="ij")
            height = np.log10(np.maximum(numbers(present[label]["losses"][group]), 10 ** levels[0]))
            axis.plot_surface(first, second, height, cmap="viridis", edgecolor="black", linewidth=0.2)
            axis.set_zlim(levels[0], levels[-1])
            axis.set_zlabel("log10 loss", fontsize=8)
            axis.tick_params(labelsize=7)
            axis.locator_params(axis="both", nbins=5)
            axis.set_box_aspect(None, zoom=0.85)
    return save(figure, path)


def radii_figure(results: Results, path: Path) -> Path:
    """‖ε_c‖/‖w‖ and ‖g_c‖ against n_c, one point a class; classes of infinite radius are left out."""
    figure, axes = grid_of_axes(2, len(results), sharey="row")
    for column, (label, result) in enumerate(results.items()):
        counts = numbers(result["class_counts"])
        for row, name in enumerate(("relative_radius", "gradient_norm")):
            axis, values = axes[row, column], numbers(result[name])
            shown = np.isfinite(values) & (values > 0) & (counts > 0)
            axis.scatter(counts[shown], values[shown], s=14, facecolors="none", edgecolors="black")
            axis.set(xscale="log", yscale="log", xlabel="training samples n_c")
        axes[0, column].set_title(f"{label}: {_correlation(result['rank_correlation'])}", fontsize=10)
        axes[1, column].set_title(f"{label}: {_correlation(result['gradient_rank_correlation'])}", fontsize=10)
    axes[0, 0].set_ylabel("‖ε_c‖ / ‖w‖ (Eq. 8, 9)")
    axes[1, 0].set_ylabel("class gradient norm ‖g_c‖")
    return save(figure, path)


def _correlation(value: float | None) -> str:
    return "rank correlation undefined" if value is None else f"rank correlation {value:+.2f}"


def history_figure(results: Results, path: Path) -> Path:
    """Few/many ratio and rank correlation with n_c along the runs, one line a run."""
    figure, axes = grid_of_axes(2, 2)
    columns = (("few_over_many", "rank_correlation"), ("gradient_few_over_many", "gradient_rank_correlation"))
    for column, names in enumerate(columns):
        for row, name in enumerate(names):
            axis = axes[row, column]
            for (label, result), style in zip(results.items(), _cycle(len(results)), strict=True):
                axis.plot(numbers(result["steps"]), numbers(result[name]), label=label, **style)
            axis.axhline(0.0 if "correlation" in name else 1.0, color="gray", linewidth=0.8)
            axis.set_yscale("linear" if "correlation" in name else "log")
            axis.set_xlabel("step")
        axes[0, column].set_title(("radius ‖ε_c‖/‖w‖", "gradient norm ‖g_c‖")[column])
    axes[0, 0].set_ylabel("median few / median many")
    axes[1, 0].set_ylabel("rank correlation with n_c")
    axes[0, 0].legend(fontsize=8)
    return save(figure, path)


def _cycle(number: int) -> list[dict[str, Any]]:
    styles = list(STYLES.values())
    return [{**styles[place % len(styles)], "markersize": 4} for place in range(number)]


def bound_figure(results: Results, path: Path) -> Path:
    """The bound as printed and its parts against n_c; above 1 it says nothing."""
    figure, axes = grid_of_axes(1, len(results), sharey="row")
    for column, (label, result) in enumerate(results.items()):
        axis, counts = axes[0, column], numbers(result["class_counts"])
        values, complexity = numbers(result["per_class"]["value"]), numbers(result["per_class"]["complexity"])
        axis.scatter(counts, values, s=16, marker="o", facecolors="none", edgecolors="black", label="bound at ρ*")
        axis.scatter(counts, complexity, s=12, marker="x", color="#08519c", label="complexity term")
        axis.scatter(counts, numbers(result["loss"]), s=12, marker="^", color="#d94801", label="training loss")
        axis.axhline(1.0, color="gray", linestyle="--", linewidth=1)
        axis.set(xscale="log", yscale="symlog", xlabel="training samples n_c", title=label)
        axis.set_yscale("symlog", linthresh=0.01)
        axis.legend(fontsize=8)
    axes[0, 0].set_ylabel("1 − p(label)")
    return save(figure, path)


def curvature_figure(results: Results, path: Path) -> Path:
    """Largest and smallest Hessian eigenvalues of each group."""
    figure, axes = grid_of_axes(1, len(results), sharey="row")
    for column, (label, result) in enumerate(results.items()):
        axis, groups = axes[0, column], result["groups"]
        for place, (name, spectrum) in enumerate(groups.items()):
            color = STYLES[name]["color"]
            axis.scatter([place] * len(spectrum["largest"]), spectrum["largest"], marker="^", color=color)
            axis.scatter([place] * len(spectrum["smallest"]), spectrum["smallest"], marker="v", color=color)
        axis.axhline(0.0, color="gray", linewidth=0.8)
        axis.set_yscale("symlog", linthresh=1.0)
        axis.set_xticks(range(len(groups)), list(groups))
        axis.set_xlim(-0.5, len(groups) - 0.5)
        axis.set_title(label)
    axes[0, 0].set_ylabel("Hessian eigenvalues (▲ largest, ▼ smallest)")
    return save(figure, path)


def sharpness_figure(results: Results, path: Path) -> Path:
    """SAM's sharpness of each group, by one and by several ascent steps."""
    figure, axes = grid_of_axes(1, len(results), sharey="row")
    for column, (label, result) in enumerate(results.items()):
        axis, groups = axes[0, column], result["groups"]
        places = np.arange(len(groups))
        for offset, name, hatch in ((-0.2, "one_step", ""), (0.2, "several_steps", "//")):
            values = numbers([groups[group][name] for group in groups])
            face = "lightgray" if hatch else "white"
            text = name.replace("_", " ")
            axis.bar(places + offset, values, 0.4, facecolor=face, edgecolor="black", hatch=hatch, label=text)
        axis.set_xticks(places, list(groups))
        axis.set_title(f"{label}, ρ = {result['radius']:g}")
    axes[0, 0].legend(fontsize=8)
    axes[0, 0].set_ylabel("loss increase in the ball")
    return save(figure, path)
