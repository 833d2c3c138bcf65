"""The paper's figures for the rows that a recipe's defaults repeat, to stand beside what was measured."""

from __future__ import annotations

from ..data import Benchmark
from ..methods import METHODS, PrintedRow
from .parsing import Settings


def paper_row(settings: Settings, data: Benchmark) -> PrintedRow | None:
    """The paper's row of its own method on this data and network; None for any other run."""
    options, first, second = settings.benchmark, settings.stage1, settings.stage2
    method = (first.perturbation, first.loss, second.rule, second.loss)
    same = method == ("ccsam", "cross_entropy", "adversarial", "cross_entropy")
    if not same or options.subset or options.holdout:
        return None
    ratio = data.settings["imbalance_ratio"] if data.record.drawn_on_loading else None
    return METHODS["ccsam"].printed_on(data.record.name, ratio, options.model.partition(".")[0])
