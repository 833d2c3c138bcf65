"""What is kept of the runs of a grid: one JSON line each."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml

from .figures import FIGURES, Row
from .grid import Grid, Run

ROWS = "rows.jsonl"


def read_rows(root: Path) -> dict[tuple[str, str, int], Row]:
    """The rows of finished runs by benchmark, method and seed."""
    path = root / ROWS
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    rows = [json.loads(line) for line in lines if line.strip()]
    return {(row["benchmark"], row["method"], row["seed"]): row for row in rows}


def write_rows(root: Path, rows: Iterable[Row]) -> None:
    """All rows in one move, so that a kill leaves the old file or the new one."""
    root.mkdir(parents=True, exist_ok=True)
    part = root / f"{ROWS}.part"
    part.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    part.replace(root / ROWS)


def finished_row(run: Run) -> Row | None:
    """The row of a run from what its process left; None where it is not finished."""
    path = run.folder / "metrics.json"
    if not path.is_file():
        return None
    metrics = json.loads(path.read_text(encoding="utf-8"))
    last = list(metrics["results"])[-1]
    return {
        "benchmark": run.benchmark.name,
        "method": run.method.name,
        "seed": run.seed,
        **{name: metrics["results"][last][name] for name in FIGURES},
        "stage": last,
        "stages": {stage: {name: figures[name] for name in FIGURES} for stage, figures in metrics["results"].items()},
        "checkpoint": metrics["checkpoint"],
        "epochs": _epochs(run.folder / "settings.yaml", len(metrics["results"])),
        "seconds": sum(metrics["seconds"].values()),
        "resumed": any(metrics["resumed_from"].values()),
        "evaluated_on": metrics["evaluated_on"],
        "command": run.benchmark.kind,
        "method_name": run.method.kind,
        "settings": run.settings(),
        "device": metrics.get("device"),
        "commit": metrics.get("commit"),
        "log": _log(run.folder / "stage1" / "finished.json"),
    }


def check_rows(grid: Grid, rows: Mapping[tuple[str, str, int], Row]) -> None:
    """ValueError where a finished row belongs to other settings than the grid has now."""
    for run in grid.runs():
        row = rows.get(run.key)
        if row is None:
            continue
        kinds = (row["command"], row["method_name"]), (run.benchmark.kind, run.method.kind)
        if kinds[0] != kinds[1] or row["settings"] != run.settings():
            raise ValueError(
                f"{run.benchmark.name}, {run.method.name}, seed {run.seed} was run with {row['settings']} "
                f"({' '.join(kinds[0])}) and the grid now has {run.settings()} ({' '.join(kinds[1])}): give the "
                "changed arm another name, or the grid another output_dir."
            )


def _epochs(settings: Path, stages: int) -> list[float]:
    """The epochs of each stage; its last one is what the figures are measured after."""
    content = yaml.safe_load(settings.read_text(encoding="utf-8"))
    return [float(content[section].get("num_train_epochs", 3)) for section in ("stage1", "stage2")[:stages]]


def _log(path: Path) -> list[dict[str, float]]:
    """What stage 1 logged, evenly spread over its epochs: losses, and how the radii were ordered."""
    return json.loads(path.read_text(encoding="utf-8")).get("log") or [] if path.is_file() else []
