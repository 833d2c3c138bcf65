"""What a named method is: its options, where each of its hyper-parameters was read, and what benchmarks change."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from .printed import PrintedRow

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Setting:
    """One hyper-parameter of a method and where its value was read.

    option: ``stage1.NAME`` or ``stage2.NAME``, with ``.KEY`` for one of ``loss_args`` and ``classifier_args``;
    ``deferred`` and ``lr_decay`` are the method's own. source: a file of the authors' release as OWNER/REPOSITORY PATH,
    or the paper's table. chosen: no source gives the value; then source says what is known instead.
    """

    option: str
    value: Any
    source: str
    chosen: bool = False


@dataclass(frozen=True)
class Published:
    """What the published runs on one benchmark set differently: options over the method's own, and where they stand."""

    source: str
    stage1: Options = field(default_factory=dict)
    stage2: Options = field(default_factory=dict)
    deferred: float | None = None

    def changes(self) -> dict[str, Any]:
        """Every changed value by the name that `Setting.option` has."""
        found: dict[str, Any] = {} if self.deferred is None else {"deferred": self.deferred}
        for stage, options in (("stage1", self.stage1), ("stage2", self.stage2)):
            found |= {f"{stage}.{name}": value for name, value in leaves(options).items()}
        return found


# By benchmark and imbalance ratio, None where the benchmark has one split.
PublishedValues = Mapping[tuple[str, int | None], Published]


@dataclass(frozen=True)
class Method:
    """One named combination.

    title: as the tables print it. reference: whose method. formula: what is minimised, in one line. stage1, stage2:
    options of `CCSAMTrainingArguments` and `ClassifierTrainingArguments`, stage2 None where there is no second stage.
    augmentation: where it is part of the method. deferred: share of the epochs before class weights count (DRW).
    lr_decay: factor at the milestones, where the method's papers have another than 0.1. settings: every
    hyper-parameter with its source. published: what published runs on a benchmark set differently; a ratio without an
    entry takes the nearest one's. paper: its rows in the paper's Tables 1 to 4. note: what differs, and what is tuned
    where.
    """

    name: str
    title: str
    reference: str
    formula: str
    stage1: Options
    stage2: Options | None = None
    augmentation: str | None = None
    deferred: float | None = None
    lr_decay: float | None = None
    settings: tuple[Setting, ...] = ()
    published: PublishedValues = field(default_factory=lambda: MappingProxyType({}))
    paper: tuple[PrintedRow, ...] = ()
    note: str = ""

    @property
    def classifier(self) -> str:
        """The kind of classifier that stage 1 trains."""
        return str(self.stage1.get("classifier", "linear"))

    def printed_on(
        self, benchmark: str, imbalance_ratio: float | None = None, network: str | None = None
    ) -> PrintedRow | None:
        """The row of Table 1 or 3 (else 2) for a benchmark; None where the paper has none of that ratio and network."""
        found = [
            row
            for row in self.paper
            if row.table != 4
            and (row.benchmark, row.imbalance_ratio) == (benchmark, imbalance_ratio)
            and network in (None, row.network)
        ]
        return max(found, key=lambda row: row.table, default=None)

    def published_for(self, benchmark: str | None, imbalance_ratio: float | None = None) -> Published | None:
        """The entry of `published` for a benchmark, at the nearest ratio (in logarithms) where it has several."""
        ratios = [ratio for name, ratio in self.published if name == benchmark]
        if benchmark is None or not ratios:
            return None
        if imbalance_ratio is None or None in ratios:
            return self.published[benchmark, ratios[0]]
        wanted = imbalance_ratio
        return self.published[benchmark, min(ratios, key=lambda ratio: abs(math.log((ratio or 1) / wanted)))]

    def sections(
        self,
        epochs: float,
        milestones: bool = True,
        benchmark: str | None = None,
        imbalance_ratio: float | None = None,
    ) -> dict[str, dict[str, Any]]:
        """Options as the sections of a run.

        Args:
            epochs: of stage 1, which ``deferred`` is a share of.
            milestones: whether the run's schedule has any (``lr_decay``).
            benchmark: whose published values to take; None for the method's own.
            imbalance_ratio: the same, for benchmarks with several.
        """
        there = self.published_for(benchmark, imbalance_ratio) or Published("")
        first = overlaid(self.stage1, there.stage1)
        deferred = self.deferred if there.deferred is None else there.deferred
        if deferred is not None:
            # Rounded first: 90 epochs times two thirds are 60, not 59.
            first = overlaid(first, {"loss_args": {"drw_epoch": int(round(deferred * epochs, 6))}})
        if self.lr_decay is not None and milestones:
            first["lr_decay"] = self.lr_decay
        return {
            "benchmark": {"second_stage": self.stage2 is not None, "control": False}
            | ({} if self.augmentation is None else {"augmentation": self.augmentation}),
            "stage1": first,
            "stage2": {} if self.stage2 is None else overlaid(self.stage2, there.stage2),
        }


def overlaid(options: Options, changes: Options) -> dict[str, Any]:
    """The options with the changes over them; mappings such as ``loss_args`` are joined key by key."""
    result = {name: dict(value) if isinstance(value, Mapping) else value for name, value in options.items()}
    for name, value in changes.items():
        result[name] = {**result.get(name, {}), **value} if isinstance(value, Mapping) else value
    return result


def leaves(options: Options) -> dict[str, Any]:
    """The options with ``NAME.KEY`` for every key of a mapping."""
    found: dict[str, Any] = {}
    for name, value in options.items():
        if isinstance(value, Mapping):
            found |= {f"{name}.{key}": inner for key, inner in value.items()}
        else:
            found[name] = value
    return found


def by_benchmark(*entries: PublishedValues) -> PublishedValues:
    """The entries together, read-only."""
    return MappingProxyType({key: value for some in entries for key, value in some.items()})
