"""Contrasts fixed beforehand: differences of two methods, paired by seed, with intervals."""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from .arms import Arm
from .figures import FIGURES, Row

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Contrast:
    """What is asked, and the two methods whose difference answers it."""

    name: str
    of: str
    against: str


@dataclass(frozen=True)
class Difference:
    """mean of d_s = of_s − against_s over the n seeds that both have, and the interval of Student's t around it."""

    mean: float
    low: float
    high: float
    seeds: int


def read_contrasts(entries: Any, methods: Sequence[Arm]) -> tuple[Contrast, ...]:
    """The contrasts of a grid; between two sweeps of one option, one for each value that both have.

    ValueError for a name that no method of the grid has.
    """
    if not isinstance(entries, list):
        raise ValueError("The grid's contrasts must be a list of {name, of, against}.")
    found: list[Contrast] = []
    for entry in entries:
        if not isinstance(entry, dict) or set(entry) != {"name", "of", "against"}:
            raise ValueError(f"A contrast of the grid has name, of and against, got {entry!r}.")
        of, against = (_side(str(entry[key]), methods, str(entry["name"])) for key in ("of", "against"))
        found += _paired(str(entry["name"]), of, against, whole_sweep=str(entry["against"]) == against[0].family)
    return tuple(found)


def _side(name: str, methods: Sequence[Arm], contrast: str) -> list[Arm]:
    arms = [arm for arm in methods if name in (arm.name, arm.family)]
    if not arms:
        known = dict.fromkeys(arm.family or arm.name for arm in methods)
        raise ValueError(f"The contrast {contrast!r} names {name!r}: the grid's methods are {', '.join(known)}.")
    return arms


def _paired(name: str, of: Sequence[Arm], against: Sequence[Arm], whole_sweep: bool) -> list[Contrast]:
    if not whole_sweep:
        return [Contrast(name if len(of) == 1 else f"{name}, {a.value:g}", a.name, against[0].name) for a in of]
    others = {(arm.option, arm.value): arm for arm in against}
    pairs = [(arm, others[arm.option, arm.value]) for arm in of if (arm.option, arm.value) in others]
    if not pairs:
        raise ValueError(f"The contrast {name!r}: {of[0].family or of[0].name} and {against[0].family} share no value.")
    return [Contrast(f"{name}, {a.value:g}", a.name, b.name) for a, b in pairs]


def paired_difference(of: Mapping[int, float], against: Mapping[int, float]) -> Difference | None:
    """d̄ ± t(0.975; n − 1) s_d/√n over the seeds that both have; None without any, no interval (nan) with one.

    The seeds share initialisation, order and augmentation of both methods, so that the spread common to both drops
    out. The interval presumes differences that are roughly normal.
    """
    seeds = sorted(set(of) & set(against))
    if not seeds:
        return None
    values = [of[seed] - against[seed] for seed in seeds]
    mean = statistics.mean(values)
    if len(values) == 1:
        return Difference(mean, math.nan, math.nan, 1)
    half = student_quantile(0.5 + CONFIDENCE / 2, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return Difference(mean, mean - half, mean + half, len(values))


def student_quantile(probability: float, degrees: int) -> float:
    """t with P(T ≤ t) = probability >= 1/2 for Student's distribution of ``degrees`` >= 1.

    With T = √degrees · tan θ the distribution function is ½ + c ∫₀^θ cos^(degrees − 1), c = Γ((degrees + 1)/2) /
    (√π Γ(degrees/2)): Simpson's rule on 2,000 intervals, and bisection for θ.
    """
    factor = math.exp(math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)) / math.sqrt(math.pi)
    weights = np.array([1.0, *[4.0, 2.0] * 999, 4.0, 1.0])

    def excess(theta: float) -> float:
        values = np.cos(np.linspace(0, theta, 2001)) ** (degrees - 1)
        return 0.5 + factor * float(weights @ values) * theta / 6000 - probability

    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if excess(middle) > 0 else (middle, high)
    return math.sqrt(degrees) * math.tan((low + high) / 2)


@dataclass(frozen=True)
class ContrastRow:
    """One contrast on one benchmark in one figure, in percentage points."""

    benchmark: str
    contrast: str
    of: str
    against: str
    figure: str
    difference: float | None
    low: float | None
    high: float | None
    seeds: int


def contrast_rows(
    benchmarks: Sequence[Arm],
    contrasts: Sequence[Contrast],
    rows: Mapping[tuple[str, str, int], Row],
    score: str = "accuracy",
) -> list[ContrastRow]:
    """Every contrast in ``score`` and in the shot groups."""
    found = []
    for benchmark in benchmarks:
        for contrast in contrasts:
            for figure in (score, *(name for name in FIGURES if name in ("many", "medium", "few"))):
                sides = [_by_seed(rows, benchmark.name, name, figure) for name in (contrast.of, contrast.against)]
                d = paired_difference(*sides)
                place = (benchmark.name, contrast.name, contrast.of, contrast.against, figure)
                found.append(
                    ContrastRow(*place, None, None, None, 0)
                    if d is None
                    else ContrastRow(*place, d.mean, d.low, d.high, d.seeds)
                )
    return found


def _by_seed(rows: Mapping[tuple[str, str, int], Row], benchmark: str, method: str, figure: str) -> dict[int, float]:
    return {
        seed: 100 * row[figure]
        for (b, m, seed), row in rows.items()
        if (b, m) == (benchmark, method) and row[figure] is not None
    }


def contrast_table(found: Sequence[ContrastRow]) -> str:
    """One line for each contrast on each benchmark; what has not been run says so."""
    figures = list(dict.fromkeys(row.figure for row in found))
    lines = [["benchmark", "contrast", "difference of", *figures, "pairs"]]
    lines.append(["---"] * len(lines[0]))
    for (benchmark, name), group in _grouped(found).items():
        words = [_words(row) for row in group]
        pairs = str(max(row.seeds for row in group))
        lines.append([benchmark, name, f"{group[0].of} − {group[0].against}", *words, pairs])
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return (
        "### Contrasts\n\n"
        f"{table}\n\nDifferences in percentage points, means over paired seeds with 95 % intervals of Student's t. An "
        "interval that holds 0 leaves the sign open. Nothing is corrected for the number of contrasts.\n"
    )


def _grouped(found: Sequence[ContrastRow]) -> dict[tuple[str, str], list[ContrastRow]]:
    groups: dict[tuple[str, str], list[ContrastRow]] = {}
    for row in found:
        groups.setdefault((row.benchmark, row.contrast), []).append(row)
    return groups


def _words(row: ContrastRow) -> str:
    if row.difference is None or row.low is None or row.high is None:
        return "not run"
    if math.isnan(row.low):
        return f"{row.difference:+.2f} (one pair)"
    return f"{row.difference:+.2f} ({row.low:+.2f} to {row.high:+.2f})"


def save_contrasts(found: Sequence[ContrastRow], path: Path) -> None:
    """The same as CSV."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(ContrastRow)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in found)
