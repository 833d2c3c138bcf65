"""A grid of runs: methods x benchmarks x seeds, read from a YAML file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..methods import find_method
from .arms import Arm, as_word, read_arms, read_options
from .contrasts import Contrast, read_contrasts
from .figures import FIGURES

COMMANDS = ("digits", "cifar", "imagenet", "places", "inaturalist", "folder")
NEEDED = ("output_dir", "benchmarks", "methods", "seeds")
KEYS = (*NEEDED, "options", "contrasts", "score", "note")
STAGE2 = "stage2."
# Where the paper's figures belong to: its CIFAR settings with its network.
PAPER_COMMAND = "cifar"
UNLIKE_PAPER = ("smoke", "holdout", "model", "num_train_epochs", "max_steps", "perturbation", "loss", "second_stage")


@dataclass(frozen=True)
class Run:
    """One process: a method on a benchmark with a seed."""

    benchmark: Arm
    method: Arm
    seed: int
    shared: Mapping[str, Any]
    root: Path

    @property
    def key(self) -> tuple[str, str, int]:
        return self.benchmark.name, self.method.name, self.seed

    @property
    def folder(self) -> Path:
        return self.root / "runs" / self.benchmark.name / self.method.name / f"seed{self.seed}"

    def settings(self) -> dict[str, str]:
        """Every flag that decides the result, by its name: the grid's, the benchmark's, the method's, in this order."""
        options = {**self.shared, **self.benchmark.options, **self.method.options}
        if find_method(self.method.kind).stage2 is None:
            # What all methods of a grid share may be meant for those with a second stage.
            options = {
                name: v for name, v in options.items() if not name.startswith(STAGE2) or name in self.method.options
            }
        return {name: as_word(value) for name, value in options.items()}

    def words(self) -> list[str]:
        """Arguments of ``python -m ccsam_hf``, without those of a resumed run."""
        flags = {"method": self.method.kind, **self.settings(), "seed": self.seed, "output_dir": self.folder}
        return [self.benchmark.kind, *(f"--{name}={value}" for name, value in flags.items())]


@dataclass(frozen=True)
class Grid:
    """benchmarks: by recipe command. methods: of `METHODS`. options: flags of every run.

    contrasts: differences of two methods to report. score: of `FIGURES`, what tables rank by. note: printed below them,
    such as what was tuned where.
    """

    root: Path
    benchmarks: tuple[Arm, ...]
    methods: tuple[Arm, ...]
    seeds: tuple[int, ...]
    options: Mapping[str, Any]
    contrasts: tuple[Contrast, ...] = ()
    score: str = "accuracy"
    note: str = ""

    def runs(self) -> Iterator[Run]:
        """Seed by seed, so that every row has a first figure early."""
        for seed in self.seeds:
            for benchmark in self.benchmarks:
                for method in self.methods:
                    yield Run(benchmark, method, seed, self.options, self.root)

    def paper(self, benchmark: Arm, method: Arm) -> float | None:
        """The paper's figure in % for a cell, None where it has none for such a run."""
        options = {**self.options, **benchmark.options, **method.options}
        known = find_method(method.kind)
        if benchmark.kind != PAPER_COMMAND or any(name in options for name in UNLIKE_PAPER):
            return None
        name = str(options.get("benchmark") or f"{options.get('dataset', 'cifar100')}-lt")
        row = known.printed_on(name, int(options.get("imbalance_ratio", 100)))
        return None if row is None else row.overall


def read_grid(path: str | Path) -> Grid:
    """The grid of a YAML file; ValueError for anything unknown, with the choices."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"The grid {path} cannot be read: {error}") from error
    if not isinstance(content, dict) or set(content) - set(KEYS):
        raise ValueError(
            f"The grid {path} must be a mapping with the keys {', '.join(NEEDED)} and any of "
            f"{', '.join(KEYS[len(NEEDED) :])}."
        )
    missing = [key for key in NEEDED if not content.get(key)]
    if missing:
        raise ValueError(f"The grid {path} lacks {', '.join(missing)}.")
    seeds = content["seeds"]
    if not isinstance(seeds, list) or not all(type(seed) is int for seed in seeds):
        raise ValueError(f"The grid's seeds must be a list of whole numbers, got {seeds!r}.")
    benchmarks = read_arms(content["benchmarks"], "command", "benchmarks")
    unknown = [arm.kind for arm in benchmarks if arm.kind not in COMMANDS]
    if unknown:
        raise ValueError(f"The grid's command {unknown[0]!r} is not known; choose one of {', '.join(COMMANDS)}.")
    methods = read_arms(content["methods"], "method", "methods")
    for arm in methods:
        find_method(arm.kind)
    score = str(content.get("score", "accuracy"))
    if score not in FIGURES:
        raise ValueError(f"The grid's score {score!r} is not known; choose one of {', '.join(FIGURES)}.")
    return Grid(
        Path(content["output_dir"]),
        benchmarks,
        methods,
        tuple(dict.fromkeys(seeds)),
        read_options(content.get("options") or {}, "options"),
        read_contrasts(content.get("contrasts") or [], methods),
        score,
        str(content.get("note") or ""),
    )
