"""The sections of a recipe's defaults and of a YAML file, and what each may hold."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from ..training import CCSAMTrainingArguments, ClassifierTrainingArguments
from .options import BenchmarkOptions

OPTIONS: dict[str, type] = {
    "benchmark": BenchmarkOptions,
    "stage1": CCSAMTrainingArguments,
    "stage2": ClassifierTrainingArguments,
}


class _UniqueKeys(yaml.SafeLoader):
    """YAML that refuses a key given twice, of which PyYAML silently keeps the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:merge" and key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is given twice", key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def option_names(section: str) -> set[str]:
    """Names of the options of a section."""
    return {f.name for f in fields(OPTIONS[section]) if f.init}


def read_sections(path: str) -> dict[str, dict[str, Any]]:
    """A YAML file of sections; ValueError when it cannot be read or is something else."""
    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8"), _UniqueKeys) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"--config {path} cannot be read: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(section or {}, dict) for section in content.values()):
        raise ValueError(f"--config {path} must hold sections {', '.join(OPTIONS)}, each with NAME: VALUE lines.")
    return {str(name): section or {} for name, section in content.items()}


def merged(*sources: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The sections of all sources, later ones over earlier ones; ValueError for unknown sections and options."""
    result: dict[str, dict[str, Any]] = {name: {} for name in OPTIONS}
    for source in sources:
        for section, values in source.items():
            if section not in result:
                raise ValueError(f"There is no section {section!r}; the sections are {', '.join(OPTIONS)}.")
            known = {f.name: f.default for f in fields(OPTIONS[section]) if f.init}
            for name, value in values.items():
                if name not in known:
                    raise ValueError(f"Section {section!r} has no option {name!r}; {near(name, set(known))}.")
                if type(known[name]) in (int, float) and isinstance(value, list | dict):
                    raise ValueError(f"Section {section!r}: {name} is one number, not {value}.")
            result[section] |= values
    return result


def near(name: str, known: set[str], prefix: str = "") -> str:
    """The part of a message that proposes names like the wrong one."""
    likely = difflib.get_close_matches(name, sorted(known), n=3)
    return f"near names: {', '.join(prefix + word for word in likely)}" if likely else "--help lists them all"
