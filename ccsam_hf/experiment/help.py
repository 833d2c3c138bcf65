"""``--help`` of a recipe: every flag of the experiment and of both stages."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from enum import Enum
from typing import Any

from transformers import TrainingArguments

from ..training import CCSAMTrainingArguments, ClassifierTrainingArguments
from .options import BenchmarkOptions
from .parsing import INHERITED, STAGE2_PREFIX, Source
from .sections import merged

WIDTH = 110


def help_text(title: str, defaults: Mapping[str, Mapping[str, Any]]) -> str:
    """Usage, then the flags in groups, with this recipe's defaults."""
    sections = merged(defaults)
    stock = {f.name for f in fields(TrainingArguments) if f.init}
    first, second = sections["stage1"], sections["stage2"]
    own1 = [f for f in fields(CCSAMTrainingArguments) if f.init and f.name not in stock]
    own2 = [f for f in fields(ClassifierTrainingArguments) if f.init and f.name not in stock]
    shared = [f for f in fields(CCSAMTrainingArguments) if f.init and f.name in stock]
    parts = [
        title,
        "usage: [--config FILE.yaml] [--smoke] [--NAME VALUE ...] [--stage2.NAME VALUE ...]\n"
        "Flags may also be written --NAME=VALUE, and none empties an option that may be empty. A YAML file has the\n"
        "sections benchmark, stage1 and stage2.",
        _group("Experiment", [*fields(Source), *fields(BenchmarkOptions)], sections["benchmark"]),
        _group("Stage 1", own1, first),
        _group("Stage 2", own2, {name: first[name] for name in INHERITED if name in first} | second, STAGE2_PREFIX),
        _group("Stage 1, from transformers.TrainingArguments", shared, first),
        _taken_over(second),
    ]
    return "\n\n".join(parts)


def _taken_over(second: Mapping[str, Any]) -> str:
    names = ", ".join(name for name in INHERITED if name not in second)
    own = ", ".join(f"--stage2.{name} {_shown(value)}" for name, value in second.items())
    text = "Stage 2 has all of these as --stage2.NAME too. It takes over from stage 1, unless told otherwise: "
    return textwrap.fill(f"{text}{names}. Its own defaults: {own}.", WIDTH)


def _group(title: str, options: list[Field[Any]], defaults: Mapping[str, Any], prefix: str = "--") -> str:
    return "\n".join([f"{title}:", *(_option(option, defaults, prefix) for option in options)])


def _option(option: Field[Any], defaults: Mapping[str, Any], prefix: str) -> str:
    value = defaults.get(option.name, _default(option))
    explained = str(option.metadata.get("help", "")).strip().split("\n")[0]
    head = f"  {prefix}{option.name} ({_shown(value)})"
    return textwrap.fill(f"{head}  {explained}", WIDTH, subsequent_indent=" " * 6)


def _default(option: Field[Any]) -> Any:
    return option.default if option.default_factory is MISSING else option.default_factory()


def _shown(value: Any) -> str:
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, list):
        return " ".join(map(str, value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
