"""The record of a training about which nobody told more than its trainer knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from .card import bare_record
from .environment import device_name, package_commit, versions
from .record import Role, RunRecord
from .stages import headline_metrics, stage_record
from .subjects import citations


def training_record(
    folder: str | Path,
    name: str,
    role: Role,
    method: str,
    arguments: Any,
    *,
    step: int,
    log_history: Sequence[Mapping[str, Any]],
    thresholds: Mapping[str, Any],
    device: torch.device | str,
) -> RunRecord:
    """One stage, from a saved model folder and plain parts of a trainer (`state`, `args`).

    Only an evaluation at `step`, the step of the saved weights, counts as theirs. arguments: the trainer's dataclass,
    with the fields `seed` and `loss`. thresholds: `ShotThresholds.describe()`.
    """
    bare = bare_record(folder, name)
    data = bare.data
    if data is not None:
        data = replace(data, thresholds=dict(thresholds), test="the evaluation set that the trainer was given")
    figures = last_evaluation(log_history, step)
    stage = stage_record(role, method, arguments, metrics=figures, log_history=log_history)
    return replace(
        bare,
        data=data,
        stages=(stage,),
        published=role,
        seed=arguments.seed,
        commit=package_commit(),
        versions=versions(),
        device=device_name(device),
        citations=citations(losses=[arguments.loss]),
    )


def last_evaluation(log_history: Sequence[Mapping[str, Any]], step: int) -> Mapping[str, Any] | None:
    """The evaluation logged at a step, the last one if there were several; None without any."""
    found = [entry for entry in log_history if entry.get("step") == step and headline_metrics(entry)]
    evaluated = [entry for entry in found if any(name.startswith("eval_") for name in entry)]
    return evaluated[-1] if evaluated else None
