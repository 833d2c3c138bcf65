"""Flags and YAML files -> options: a recipe's defaults, then the file, then the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml
from transformers import HfArgumentParser

from ..training import CCSAMTrainingArguments, ClassifierTrainingArguments
from .options import BenchmarkOptions

SECTIONS = ("benchmark", "stage1", "stage2")
STAGE2_PREFIX = "--stage2."
# What both stages of a run should agree on, unless stage 2 is told otherwise.
INHERITED = (
    "seed",
    "data_seed",
    "bf16",
    "fp16",
    "use_cpu",
    "report_to",
    "disable_tqdm",
    "dataloader_num_workers",
    "per_device_train_batch_size",
    "per_device_eval_batch_size",
    "many_shot",
    "few_shot",
    "shot_boundaries",
    "full_determinism",
    "save_total_limit",
)


@dataclass
class ConfigOption:
    """Where further settings come from."""

    config: str | None = None


@dataclass(frozen=True)
class Settings:
    """One experiment: what to run and the arguments of both stages."""

    benchmark: BenchmarkOptions
    stage1: CCSAMTrainingArguments
    stage2: ClassifierTrainingArguments


def parse_settings(defaults: Mapping[str, Mapping[str, Any]], argv: Sequence[str]) -> Settings:
    """Settings from a recipe's ``defaults`` (sections benchmark, stage1, stage2), ``--config FILE.yaml`` and flags.

    Flags bear the names of stage 1 and of `BenchmarkOptions`; ``--stage2.NAME`` sets stage 2. ``output_dir`` is the
    folder of the whole experiment.
    """
    first, second = _split_flags(argv)
    config, rest = HfArgumentParser(ConfigOption).parse_args_into_dataclasses(  # type: ignore[arg-type]
        args=first, return_remaining_strings=True
    )
    sections = _merged(defaults, _read(config.config))
    benchmark, stage1 = _parse(
        (BenchmarkOptions, CCSAMTrainingArguments), sections["benchmark"] | sections["stage1"], rest
    )
    inherited = {name: getattr(stage1, name) for name in INHERITED}
    folder = {"output_dir": str(Path(str(stage1.output_dir)) / "stage2")}
    (stage2,) = _parse((ClassifierTrainingArguments,), inherited | folder | sections["stage2"], second)
    return Settings(benchmark, stage1, stage2)


def _split_flags(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Flags without and with the prefix of stage 2, each with its values."""
    first: list[str] = []
    second: list[str] = []
    current = first
    for word in argv:
        if word.startswith("--"):
            current = second if word.startswith(STAGE2_PREFIX) else first
            word = "--" + word.removeprefix(STAGE2_PREFIX) if current is second else word
        current.append(word)
    return first, second


def _read(path: str | None) -> dict[str, dict[str, Any]]:
    if path is None:
        return {}
    try:
        content = yaml.safe_load(Path(path).read_text()) or {}
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"--config {path} cannot be read: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(section or {}, dict) for section in content.values()):
        raise ValueError(f"{path} must hold sections {', '.join(SECTIONS)}, each with NAME: VALUE lines.")
    return {name: section or {} for name, section in content.items()}


def _merged(*sources: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    known = {
        "benchmark": _names(BenchmarkOptions),
        "stage1": _names(CCSAMTrainingArguments),
        "stage2": _names(ClassifierTrainingArguments),
    }
    merged: dict[str, dict[str, Any]] = {name: {} for name in SECTIONS}
    for source in sources:
        for section, values in source.items():
            if section not in merged:
                raise ValueError(f"Unknown section {section!r}; the sections are {', '.join(SECTIONS)}.")
            unknown = sorted(set(values) - known[section])
            if unknown:
                raise ValueError(f"Section {section!r} has no option {', '.join(unknown)}; see --help for the names.")
            merged[section] |= values
    return merged


def _names(options: type) -> set[str]:
    return {f.name for f in fields(options)}


def _parse(types: tuple[type, ...], defaults: Mapping[str, Any], argv: list[str]) -> tuple[Any, ...]:
    parser = HfArgumentParser(types)  # type: ignore[arg-type]
    parser.set_defaults(**defaults)
    return parser.parse_args_into_dataclasses(args=argv, look_for_args_file=False)
