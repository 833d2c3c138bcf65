"""The arms of a grid: a benchmark or a method with flags of its own, or a whole sweep of one flag."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

OURS = ("output_dir", "seed", "method", "resume_from_checkpoint")


@dataclass(frozen=True)
class Arm:
    """One benchmark or method of the grid: its name in files, what it is, and flags of its own.

    title: its name in tables, where it is not the method's. family, option, value: of an arm that a sweep made, the
    name of all its arms, the flag that they differ in, and this one's value.
    """

    name: str
    kind: str
    options: Mapping[str, Any]
    title: str | None = None
    family: str | None = None
    option: str | None = None
    value: float | None = None


def read_arms(entries: Any, kind: str, where: str) -> tuple[Arm, ...]:
    """The arms of a grid's list, sweeps written out; ValueError for anything unknown. kind: the key of what each is."""
    keys = ("name", kind, "title", "options", "sweep")
    if not isinstance(entries, list):
        raise ValueError(f"The grid's {where} must be a list of names or of mappings with {', '.join(keys)}.")
    arms = tuple(arm for entry in entries for arm in _arms_of(entry, kind, keys, where))
    names = [arm.name for arm in arms]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"The grid's {where} have {twice[0]!r} twice: give each a name of its own.")
    return arms


def _arms_of(entry: Any, kind: str, keys: Sequence[str], where: str) -> list[Arm]:
    entry = {kind: entry} if isinstance(entry, str) else entry
    if not isinstance(entry, dict) or kind not in entry or set(entry) - set(keys):
        raise ValueError(f"An entry of the grid's {where} must be a name, or have {kind} and any of {', '.join(keys)}.")
    name, title = str(entry.get("name", entry[kind])), entry.get("title")
    if not re.fullmatch(r"[\w.+-]+", name) or name.startswith("."):
        raise ValueError(f"{name!r} of the grid's {where} becomes a folder: use letters, digits and . _ + - only.")
    arm = Arm(name, str(entry[kind]), read_options(entry.get("options") or {}, name), title and str(title))
    return [arm] if "sweep" not in entry else _swept(arm, entry["sweep"])


def _swept(arm: Arm, sweep: Any) -> list[Arm]:
    """One arm for each value, named NAME-VALUE."""
    if not isinstance(sweep, dict) or len(sweep) != 1 or not isinstance(next(iter(sweep.values())), list):
        raise ValueError(f"The sweep of {arm.name} must be one option with a list of values, got {sweep!r}.")
    ((option, values),) = sweep.items()
    if not values or not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        raise ValueError(f"The sweep of {arm.name} needs numbers for {option}, got {values!r}.")
    read_options({option: values[0]}, arm.name)
    return [
        Arm(
            f"{arm.name}-{value:g}",
            arm.kind,
            {**arm.options, str(option): value},
            None if arm.title is None else f"{arm.title}, {value:g}",
            arm.name,
            str(option),
            float(value),
        )
        for value in values
    ]


def read_options(options: Any, where: str) -> dict[str, Any]:
    """Flags by name; ValueError for those that the grid sets itself."""
    if not isinstance(options, dict):
        raise ValueError(f"The options of {where} must be NAME: VALUE lines, got {options!r}.")
    own = [name for name in OURS if name in options]
    if own:
        raise ValueError(f"{own[0]} of {where} is set by the grid itself; leave it out of the options.")
    return {str(name): value for name, value in options.items()}


def as_word(value: Any) -> str:
    """A value as a flag's word."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Sequence) and not isinstance(value, str):
        raise ValueError(f"{value!r}: a flag of the grid takes one value; put lists into a --config file.")
    return str(value)
