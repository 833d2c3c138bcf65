"""What a run tells at its end: one table with where it was measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..data import Benchmark
from ..shots import SHOT_GROUPS

COLUMNS = {"accuracy": "overall", **{name: name for name in SHOT_GROUPS}}


def evaluated_on(data: Benchmark, holdout: bool) -> str:
    """What the figures of a run are measured on, in words."""
    part = data.validation if holdout else data.test
    assert part is not None
    if holdout:
        return f"{len(part):,} images held out of training (the test set is untouched)"
    return f"the test set, {len(part):,} images"


def results_table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Rows = stages, columns = overall/many/medium/few in per cent; - where a group has no class."""
    width = max(len(name) for name in results)
    lines = [" " * width + "".join(f"{title:>9}" for title in COLUMNS.values())]
    for name, figures in results.items():
        lines.append(f"{name:<{width}}" + "".join(_cell(figures[key]) for key in COLUMNS))
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    return f"{'-':>9}" if value is None else f"{100 * value:>9.2f}"


def distribution_line(class_counts: Any, groups: Mapping[str, Any]) -> str:
    """The training distribution in one line: images, classes, largest, smallest, shot groups."""
    counts = [int(n) for n in class_counts]
    shots = ", ".join(f"{int(mask.sum())} {name}" for name, mask in groups.items())
    return (
        f"{sum(counts):,} training images, {len(counts):,} classes, largest {max(counts):,}, smallest {min(counts):,} "
        f"(imbalance ratio {max(counts) / min(counts):.4g}); {shots}-shot classes"
    )
