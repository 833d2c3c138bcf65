"""Stage records from arguments, metrics and logs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, fields, is_dataclass
from enum import Enum
from typing import Any

from .private import has_path
from .record import HEADLINE, Role, StageRecord

# Where a run lies on its machine and how it reports; none of it decides the weights.
MACHINE_ARGUMENTS = {
    "data_dir",
    "ddp_backend",
    "deepspeed",
    "disable_tqdm",
    "fsdp_config",
    "list_dir",
    "local_rank",
    "logging_dir",
    "output_dir",
    "overwrite_output_dir",
    "project",
    "push_to_hub",
    "report_to",
    "resume_from_checkpoint",
    "run_name",
    "trackio_bucket_id",
    "trackio_space_id",
    "trackio_static_space_id",
}
HUB_ARGUMENTS = ("hub_", "push_to_hub_")
# What a summary of the log keeps: the losses, and how the classes' radii were ordered.
LOGGED = (
    "epoch",
    "step",
    "loss",
    "loss_clean",
    "logit_shift",
    "radius_few_over_many",
    "radius_rank_correlation",
    "learning_rate",
)


def stage_record(
    role: Role,
    method: str,
    arguments: Any = None,
    *,
    metrics: Mapping[str, Any] | None = None,
    paper: Mapping[str, float] | None = None,
    wall_time_s: float | None = None,
    log_history: Sequence[Mapping[str, Any]] = (),
) -> StageRecord:
    """One stage from its arguments dataclass (such as CCSAMTrainingArguments), its metrics and its log.

    metrics: an evaluation's metrics.json, or what `trainer.evaluate()` returned. log_history: trainer.state's.
    """
    values = {} if arguments is None else portable_arguments(arguments)
    changed = () if arguments is None else tuple(name for name in values if _is_changed(arguments, name))
    figures = None if metrics is None else headline_metrics(metrics)
    logged = log_summary(log_history)
    return StageRecord(
        role, method, values, changed, figures, None if paper is None else dict(paper), wall_time_s, logged
    )


def portable_arguments(arguments: Any) -> dict[str, Any]:
    """The fields of an arguments dataclass as plain values, without what belongs to the machine or the Hub."""
    found = {}
    for field in fields(arguments):
        value = _plain_value(getattr(arguments, field.name))
        private = field.name in MACHINE_ARGUMENTS or field.name.startswith(HUB_ARGUMENTS)
        if not private and not has_path(json.dumps(value)):
            found[field.name] = value
    return found


def _plain_value(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value) and not isinstance(value, type):
        return {name: _plain_value(item) for name, item in asdict(value).items()}
    if isinstance(value, Mapping):
        return {str(name): _plain_value(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_value(item) for item in value]
    is_plain = isinstance(value, str | int | None) or (isinstance(value, float) and math.isfinite(value))
    return value if is_plain else str(value)


def _is_changed(arguments: Any, name: str) -> bool:
    """Whether a value is not the field's default; None, False and [] are one, since transformers fills them in."""
    field = next(field for field in fields(arguments) if field.name == name)
    default = field.default if field.default_factory is MISSING else field.default_factory()
    value = getattr(arguments, name)
    if default is None and is_dataclass(value) and not isinstance(value, type):
        default = type(value)()
    ours, usual = _plain_value(value), _plain_value(default)
    return ours != usual and not (_is_nothing(ours) and _is_nothing(usual))


def _is_nothing(value: Any) -> bool:
    return value is None or value is False or value in ([], {}, "")


def headline_metrics(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    """The figures of `HEADLINE` in an evaluation's metrics.json, or in what `trainer.evaluate()` returned.

    A group without classes is None; figures that were not measured (ECE by the trainer) are left out.
    """
    if "closed_set" in metrics:
        closed = metrics["closed_set"]
        figures = {name: closed[name] for name in HEADLINE if name != "ece"}
        return figures | {"ece": closed["calibration"]["overall"]["ece"]}
    plain = {name.removeprefix("eval_"): value for name, value in metrics.items()}
    return {name: plain[name] for name in HEADLINE if name in plain}


def log_summary(log_history: Sequence[Mapping[str, Any]], rows: int = 6) -> tuple[dict[str, float], ...]:
    """`LOGGED` of at most `rows` entries with a training loss, evenly spread, the first and the last among them."""
    entries = [entry for entry in log_history if "loss" in entry]
    last = len(entries) - 1
    chosen = sorted({round(i * last / (rows - 1)) for i in range(rows)}) if entries else []
    return tuple({name: entries[i][name] for name in LOGGED if name in entries[i]} for i in chosen)
