"""The table of a grid: Markdown, CSV and a figure, with the paper's figures beside ours."""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..methods import METHODS
from .arms import Arm
from .contrasts import contrast_rows, contrast_table, save_contrasts
from .curves import draw_order, draw_sweeps
from .figures import FIGURES, Row
from .grid import Grid

NOT_RUN = "not run"
NONE = "–"
SCORES = {"accuracy": "top-1 accuracy", "balanced_accuracy": "balanced accuracy, the mean over classes"}


@dataclass(frozen=True)
class Cell:
    """A method on a benchmark over its finished seeds; figures in %, None where there is nothing to tell.

    score: mean of the grid's score, one of the figures; score_std: its sample standard deviation.
    """

    benchmark: str
    method: str
    title: str
    seeds: int
    wanted: int
    score: float | None
    score_std: float | None
    accuracy: float | None
    balanced_accuracy: float | None
    many: float | None
    medium: float | None
    few: float | None
    paper: float | None
    seconds: float | None
    epochs: str
    evaluated_on: str


def cells(grid: Grid, rows: Mapping[tuple[str, str, int], Row]) -> list[Cell]:
    """Every cell of the grid, finished or not."""
    return [_cell(grid, benchmark, method, rows) for benchmark in grid.benchmarks for method in grid.methods]


def _cell(grid: Grid, benchmark: Arm, method: Arm, rows: Mapping[tuple[str, str, int], Row]) -> Cell:
    found = [rows[benchmark.name, method.name, s] for s in grid.seeds if (benchmark.name, method.name, s) in rows]
    means = {name: _mean([row[name] for row in found]) for name in FIGURES}
    scores = [100 * row[grid.score] for row in found if row[grid.score] is not None]
    known = METHODS[method.kind].title
    named = known if method.name == method.kind else f"{known}: {method.name}"
    return Cell(
        benchmark=benchmark.name,
        method=method.name,
        title=method.title or named,
        seeds=len(found),
        wanted=len(grid.seeds),
        score=_mean([row[grid.score] for row in found]),
        score_std=statistics.stdev(scores) if len(scores) > 1 else None,
        paper=grid.paper(benchmark, method),
        seconds=statistics.mean(row["seconds"] for row in found) if found else None,
        epochs=", ".join(dict.fromkeys(" + ".join(f"{e:g}" for e in row["epochs"]) for row in found)),
        evaluated_on=", ".join(dict.fromkeys(row["evaluated_on"] for row in found)),
        **means,
    )


def _mean(values: Sequence[float | None]) -> float | None:
    present = [100 * value for value in values if value is not None]
    return statistics.mean(present) if present else None


def markdown(grid: Grid, table: Sequence[Cell]) -> str:
    """One table for each benchmark."""
    parts = []
    for benchmark in grid.benchmarks:
        rows = [cell for cell in table if cell.benchmark == benchmark.name]
        where = ", ".join(dict.fromkeys(cell.evaluated_on for cell in rows if cell.evaluated_on))
        parts.append(f"### {benchmark.name}\n\n" + _markdown_table(rows))
        parts.append(
            f"{_capital(_scored(grid))} in %, mean ± sample standard deviation over seeds, after the last epoch"
            f"{f', on {where}' if where else ''}. Paper: Zhou et al., CVPR 2023. {NONE}: no such figure."
        )
    if grid.note:
        parts.append(grid.note.strip())
    return "\n\n".join(parts) + "\n"


def _scored(grid: Grid) -> str:
    return SCORES.get(grid.score, f"accuracy of the {grid.score}-shot classes")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _markdown_table(rows: Sequence[Cell]) -> str:
    head = ["method", "ours", "paper", "many", "medium", "few", "seeds", "minutes a run", "last epoch"]
    lines = [head, ["---"] * len(head)]
    for cell in rows:
        groups = [_number(getattr(cell, name)) for name in ("many", "medium", "few")]
        minutes = NONE if cell.seconds is None else f"{cell.seconds / 60:.1f}"
        count = f"{cell.seeds} of {cell.wanted}"
        lines.append([cell.title, ours(cell), _number(cell.paper), *groups, count, minutes, cell.epochs or NONE])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def ours(cell: Cell) -> str:
    """Mean ± standard deviation in words."""
    if cell.score is None:
        return NOT_RUN
    return f"{cell.score:.2f}" + ("" if cell.score_std is None else f" ± {cell.score_std:.2f}")


def _number(value: float | None) -> str:
    return NONE if value is None else f"{value:.2f}"


def save_table(grid: Grid, rows: Mapping[tuple[str, str, int], Row]) -> str:
    """table.md, table.csv and table.png in the grid's folder, and what its contrasts, sweeps and logs make: returns the
    Markdown."""
    table = cells(grid, rows)
    text = markdown(grid, table)
    grid.root.mkdir(parents=True, exist_ok=True)
    if grid.contrasts:
        found = contrast_rows(grid.benchmarks, grid.contrasts, rows, grid.score)
        text += "\n" + contrast_table(found)
        save_contrasts(found, grid.root / "contrasts.csv")
    if any(arm.family for arm in grid.methods):
        draw_sweeps(grid, rows, grid.root / "sweeps.png")
    draw_order(grid, rows, grid.root / "radii.png")
    (grid.root / "table.md").write_text(text, encoding="utf-8")
    with (grid.root / "table.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(Cell)])
        writer.writeheader()
        writer.writerows(asdict(cell) for cell in table)
    draw(grid, table, grid.root / "table.png")
    return text


def draw(grid: Grid, table: Sequence[Cell], path: Path) -> None:
    """One panel for each benchmark: ours with its standard deviation, the paper's as a cross."""
    figure = Figure(figsize=(4.2 * len(grid.benchmarks), 1.2 + 0.32 * len(grid.methods)), layout="constrained")
    FigureCanvasAgg(figure)
    highest = max([value for cell in table for value in (cell.score, cell.paper) if value is not None], default=0)
    end = min(100.0, 1.15 * highest) or 100.0
    panels = figure.subplots(1, len(grid.benchmarks), squeeze=False, sharey=True)[0]
    for axes, benchmark in zip(panels, grid.benchmarks, strict=True):
        rows = [cell for cell in table if cell.benchmark == benchmark.name]
        places = list(range(len(rows)))
        axes.barh(
            places,
            [cell.score or 0 for cell in rows],
            xerr=[math.nan if cell.score_std is None else cell.score_std for cell in rows],
            color="0.75",
            edgecolor="0.2",
            capsize=2,
            label="ours",
        )
        printed = [(cell.paper, place) for cell, place in zip(rows, places, strict=True) if cell.paper is not None]
        if printed:
            axes.plot(*zip(*printed, strict=True), "kx", label="paper")
        for cell, place in zip(rows, places, strict=True):
            if cell.score is None:
                axes.text(0.01 * end, place, NOT_RUN, va="center", fontsize=8)
        axes.set(title=benchmark.name, xlabel=f"{_scored(grid).partition(',')[0]} (%)", yticks=places, xlim=(0, end))
        axes.set_yticklabels([cell.title for cell in rows])
    panels[0].invert_yaxis()
    shown = {text: mark for axes in panels for mark, text in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=2, fontsize=8)
    figure.savefig(path, dpi=150)
