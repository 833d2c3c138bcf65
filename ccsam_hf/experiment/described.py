"""The settings of a run as YAML sections, which ``--config`` reads again."""

from __future__ import annotations

from dataclasses import MISSING, Field, asdict, fields
from enum import Enum
from pathlib import Path
from typing import Any

import yaml

from ..training import LongTailedTrainingArguments
from .options import BenchmarkOptions
from .parsing import Settings
from .sections import read_sections

SETTINGS_FILE = "settings.yaml"
# Where a run lies, how it is watched and published: what may differ when it is resumed.
FREE = {"output_dir", "data_dir", "list_dir", "resume_from_checkpoint", "disable_tqdm", "report_to", "run_name"}
FREE |= {"use_cpu", "local_rank", "ddp_backend", "ddp_timeout", "log_level", "log_level_replica", "project"}
# Secrets, and what transformers fills in by itself or the trainers refuse.
LEFT_OUT = {"hub_token", "accelerator_config", "parallelism_config", "fsdp_config", "deepspeed", "local_rank"}
FREE_PREFIXES = ("hub_", "push_to_hub", "dataloader_", "save_", "logging_", "eval_", "trackio_")


def described(settings: Settings) -> dict[str, dict[str, Any]]:
    """Every option that differs from its default, by section."""
    usual = asdict(BenchmarkOptions())
    options = {name: value for name, value in asdict(settings.benchmark).items() if value != usual[name]}
    options = {"benchmark": settings.benchmark.benchmark, **options}
    return {"benchmark": options, "stage1": _changed(settings.stage1), "stage2": _changed(settings.stage2)}


def _changed(args: LongTailedTrainingArguments) -> dict[str, Any]:
    # Compared with the fields' defaults, not with new arguments: making those resets the state of all processes.
    values = {name: _plain(value) for name, value in args.to_dict().items()}
    found = {"output_dir": str(args.output_dir)}
    for option in fields(args):
        if option.init and option.name not in LEFT_OUT | {"output_dir"} and _is_set(option, values[option.name]):
            found[option.name] = values[option.name]
    return found


def _is_set(option: Field[Any], value: Any) -> bool:
    """Whether a value is another than the default; transformers turns None into False and empty collections."""
    default = _plain(None if option.default is MISSING else option.default)
    nothing: tuple[Any, ...] = (None, False, [], {}, "")
    return value != default and not (value in nothing and default in nothing)


def _plain(value: Any) -> Any:
    value = value.value if isinstance(value, Enum) else value
    if isinstance(value, list):
        return list(value)  # one list shared by both stages would be written as a reference
    return value if isinstance(value, (bool, int, float, str, dict, type(None))) else str(value)


def write_settings(settings: Settings) -> None:
    """settings.yaml in the experiment's folder."""
    settings.folder.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(described(settings), sort_keys=False, allow_unicode=True)
    (settings.folder / SETTINGS_FILE).write_text(text, encoding="utf-8")


def read_settings(folder: Path) -> dict[str, dict[str, Any]] | None:
    """What an earlier run wrote there."""
    path = folder / SETTINGS_FILE
    return read_sections(str(path)) if path.is_file() else None


def changed_settings(earlier: dict[str, dict[str, Any]], settings: Settings) -> list[str]:
    """Options that decide the result and differ from an earlier run's, in words."""
    differ = []
    for section, now in described(settings).items():
        before = earlier.get(section, {})
        for name in sorted({*before, *now}):
            free = name in FREE or name.startswith(FREE_PREFIXES)
            if not free and before.get(name) != now.get(name):
                values = [repr(values[name]) if name in values else "its default" for values in (now, before)]
                differ.append(f"{section} {name} is {values[0]} and was {values[1]}")
    return differ
