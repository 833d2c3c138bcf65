"""A grid of runs: methods x benchmarks x seeds, read from a YAML file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..methods import find_method

COMMANDS = ("digits", "cifar", "imagenet", "places", "inaturalist", "folder")
KEYS = ("output_dir", "benchmarks", "methods", "seeds", "options")
ARM_KEYS = ("name", "method", "command", "options")
STAGE2 = "stage2."
OURS = ("output_dir", "seed", "method", "resume_from_checkpoint")
# Where the paper's figures belong to: its CIFAR settings with its network.
PAPER_COMMAND = "cifar"
UNLIKE_PAPER = ("smoke", "holdout", "model", "num_train_epochs", "max_steps")


@dataclass(frozen=True)
class Arm:
    """One benchmark or method of the grid: its name in tables, what it is, and flags of its own."""

    name: str
    kind: str
    options: Mapping[str, Any]


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
        return {name: _word(value) for name, value in options.items()}

    def words(self) -> list[str]:
        """Arguments of ``python -m ccsam_hf``, without those of a resumed run."""
        flags = {"method": self.method.kind, **self.settings(), "seed": self.seed, "output_dir": self.folder}
        return [self.benchmark.kind, *(f"--{name}={value}" for name, value in flags.items())]


@dataclass(frozen=True)
class Grid:
    """benchmarks: by recipe command. methods: of `METHODS`. options: flags of every run."""

    root: Path
    benchmarks: tuple[Arm, ...]
    methods: tuple[Arm, ...]
    seeds: tuple[int, ...]
    options: Mapping[str, Any]

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
        if benchmark.kind != PAPER_COMMAND or known.paper is None:
            return None
        if any(name in options for name in UNLIKE_PAPER):
            return None
        name = str(options.get("benchmark") or f"{options.get('dataset', 'cifar100')}-lt")
        return known.paper.get((name, int(options.get("imbalance_ratio", 100))))


def read_grid(path: str | Path) -> Grid:
    """The grid of a YAML file; ValueError for anything unknown, with the choices."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"The grid {path} cannot be read: {error}") from error
    if not isinstance(content, dict) or set(content) - set(KEYS):
        raise ValueError(f"The grid {path} must be a mapping with the keys {', '.join(KEYS)} (options may be absent).")
    missing = [key for key in KEYS[:4] if not content.get(key)]
    if missing:
        raise ValueError(f"The grid {path} lacks {', '.join(missing)}.")
    seeds = content["seeds"]
    if not isinstance(seeds, list) or not all(type(seed) is int for seed in seeds):
        raise ValueError(f"The grid's seeds must be a list of whole numbers, got {seeds!r}.")
    benchmarks = _arms(content["benchmarks"], "command", "benchmarks")
    unknown = [arm.kind for arm in benchmarks if arm.kind not in COMMANDS]
    if unknown:
        raise ValueError(f"The grid's command {unknown[0]!r} is not known; choose one of {', '.join(COMMANDS)}.")
    methods = _arms(content["methods"], "method", "methods")
    for arm in methods:
        find_method(arm.kind)
    shared = _options(content.get("options") or {}, "options")
    return Grid(Path(content["output_dir"]), benchmarks, methods, tuple(dict.fromkeys(seeds)), shared)


def _arms(entries: Any, kind: str, where: str) -> tuple[Arm, ...]:
    if not isinstance(entries, list):
        raise ValueError(f"The grid's {where} must be a list of names or of mappings with {', '.join(ARM_KEYS)}.")
    arms = tuple(_arm(entry, kind, where) for entry in entries)
    names = [arm.name for arm in arms]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"The grid's {where} have {twice[0]!r} twice: give each a name of its own.")
    return arms


def _arm(entry: Any, kind: str, where: str) -> Arm:
    entry = {kind: entry} if isinstance(entry, str) else entry
    if not isinstance(entry, dict) or kind not in entry or set(entry) - {"name", kind, "options"}:
        raise ValueError(f"An entry of the grid's {where} must be a name, or have {kind}, and name and options.")
    name = str(entry.get("name", entry[kind]))
    if not re.fullmatch(r"[\w.+-]+", name) or name.startswith("."):
        raise ValueError(f"{name!r} of the grid's {where} becomes a folder: use letters, digits and . _ + - only.")
    return Arm(name, str(entry[kind]), _options(entry.get("options") or {}, name))


def _options(options: Any, where: str) -> dict[str, Any]:
    if not isinstance(options, dict):
        raise ValueError(f"The options of {where} must be NAME: VALUE lines, got {options!r}.")
    own = [name for name in OURS if name in options]
    if own:
        raise ValueError(f"{own[0]} of {where} is set by the grid itself; leave it out of the options.")
    return {str(name): value for name, value in options.items()}


def _word(value: Any) -> str:
    """A value as a flag's word."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Sequence) and not isinstance(value, str):
        raise ValueError(f"{value!r}: a flag of the grid takes one value; put lists into a --config file.")
    return str(value)
