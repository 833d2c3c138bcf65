"""What ``python -m ccsam_hf methods`` prints."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from .record import Method, Options, Setting, leaves
from .table import LEFT_OUT, ROWS, find_method

PAPER = "Zhou et al., CVPR 2023, Table 1, ResNet-32"
WIDTH = 110
LEGEND = (
    "published: as the authors' release or a later comparison has it for CIFAR-LT; chosen: in no source. Names are "
    "those of flags. `python -m ccsam_hf methods NAME` tells the file of every value and what other benchmarks set."
)


def describe(method: Method, sources: bool = True) -> str:
    """Name, formula, parts, figures, hyper-parameters and notes as indented lines.

    sources: also where each hyper-parameter was read, and the values of other benchmarks.
    """
    lines = [f"L = {method.formula}", f"stage 1: {_worded(method.stage1)}{_schedule(method)}"]
    if method.stage2 is not None:
        lines.append(f"stage 2: {_worded(method.stage2)}")
    if method.paper:
        printed = ", ".join(f"{name} IR {ratio} {value:.2f}" for (name, ratio), value in method.paper.items())
        lines.append(f"{PAPER}: {printed}")
    lines += _sourced(method) if sources else _summed_up(method.settings)
    if method.note:
        lines.append(method.note)
    filled = (_filled(line, first=" " * 4, rest=" " * 8) for line in lines)
    return "\n".join([f"{method.name}: {method.title} ({method.reference})", *filled])


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
            print(_filled(f"{title}: {reason}", rest=" " * 4), end="\n\n")
        print(_filled(LEGEND))
