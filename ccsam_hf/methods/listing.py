"""What ``python -m ccsam_hf methods`` prints."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from .printed import INCONSISTENT, PAPER, PRINTED, PrintedRow
from .record import Method, Options, Setting, leaves
from .rows import LEFT_OUT, ROWS, find_method

WIDTH = 110
LEGEND = (
    "published: as the authors' release or a later comparison has it for CIFAR-LT; chosen: in no source. Names are "
    "those of flags. `python -m ccsam_hf methods NAME` names the file of every value and what other benchmarks set."
)


def describe(method: Method, sources: bool = True) -> str:
    """Name, formula, parts, figures, hyper-parameters and notes as indented lines.

    sources: also where each hyper-parameter was read, and the values of other benchmarks.
    """
    lines = [f"L = {method.formula}", f"stage 1: {_worded(method.stage1)}{_schedule(method)}"]
    if method.stage2 is not None:
        lines.append(f"stage 2: {_worded(method.stage2)}")
    lines += _printed(method.paper)
    lines += _sourced(method) if sources else _summed_up(method.settings)
    if method.note:
        lines.append(method.note)
    filled = (_filled(line, first=" " * 4, rest=" " * 8) for line in lines)
    return "\n".join([f"{method.name}: {method.title} ({method.reference})", *filled])


def _printed(rows: Sequence[PrintedRow]) -> list[str]:
    """A line for each table of the paper that has the method."""
    tables = {row.table: [_row(other) for other in rows if other.table == row.table] for row in rows}
    return [f"{PAPER}, Table {table}: {'; '.join(words)}" for table, words in tables.items()]


def _row(row: PrintedRow) -> str:
    place = f"{row.benchmark} " + (row.network if row.imbalance_ratio is None else f"IR {row.imbalance_ratio}")
    groups = [("many", row.many), ("medium", row.medium), ("few", row.few)]
    words = [f"{name} {value}" for name, value in groups if value is not None]
    if row.overall is not None:
        figure = f"{row.overall:.2f}" if row.table == 1 else f"{row.overall}"
        words.append(f"overall {figure}" if words else figure)
    words += [] if row.f_measure is None else [f"F {row.f_measure:.3f}"]
    mean = INCONSISTENT.get((row.title, row.benchmark))
    words += [] if mean is None else [f"(its groups give {mean})"]
    return f"{place} {' '.join(words)}"


def _sourced(method: Method) -> list[str]:
    lines = [f"{_kind(setting)}: {_named(setting)} [{setting.source}]" for setting in method.settings]
    for (name, ratio), entry in method.published.items():
        where = name if ratio is None else f"{name} IR {ratio}"
        changed = ", ".join(f"{_flag(option)} {_word(value)}" for option, value in entry.changes().items())
        lines.append(f"on {where}: {changed} [{entry.source}]")
    return lines


def _summed_up(settings: Sequence[Setting]) -> list[str]:
    groups = {kind: [_named(s) for s in settings if _kind(s) == kind] for kind in ("published", "chosen")}
    return [f"{kind}: {', '.join(words)}" for kind, words in groups.items() if words]


def _kind(setting: Setting) -> str:
    return "chosen" if setting.chosen else "published"


def _named(setting: Setting) -> str:
    return f"{_flag(setting.option)} {_word(setting.value)}"


def _flag(option: str) -> str:
    """The option as the command line has it: names without a prefix are stage 1's."""
    return option.removeprefix("stage1.")


def _worded(options: Options) -> str:
    return ", ".join(f"{name} {_word(value)}" for name, value in leaves(options).items())


def _word(value: Any) -> str:
    if isinstance(value, (bool, Mapping)):
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _schedule(method: Method) -> str:
    parts = []
    if method.deferred is not None:
        parts.append(f"class weights from {method.deferred:.0%} of the epochs")
    if method.lr_decay is not None:
        parts.append(f"lr_decay {method.lr_decay}")
    return "".join(f", {part}" for part in parts)


def _filled(text: str, first: str = "", rest: str = "") -> str:
    return textwrap.fill(text, WIDTH, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)


def main(argv: Sequence[str] | None = None) -> None:
    """``python -m ccsam_hf methods [NAME ...]``."""
    words = [word for word in argv or () if word not in ("-h", "--help")]
    for method in [find_method(word) for word in words] or ROWS:
        print(describe(method, sources=bool(words)), end="\n\n")
    if not words:
        for title, reason in LEFT_OUT.items():
            lines = [f"{title}: {reason}", *(f"    {line}" for line in _printed(PRINTED[title]))]
            print("\n".join(_filled(line, rest=" " * 8) for line in lines), end="\n\n")
        print(_filled(LEGEND))
