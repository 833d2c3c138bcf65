"""The stages of a run in their order, and what each leaves in its folder."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from transformers.trainer_utils import get_last_checkpoint

from ..hub.record import Role
from ..training import (
    PERTURBATION_OPTIONS,
    CCSAMTrainer,
    CCSAMTrainingArguments,
    ClassifierTrainer,
    LongTailedTrainer,
    LongTailedTrainingArguments,
    default_options,
)
from .parsing import Settings

FINISHED = "finished.json"
STATE = "trainer_state.json"


@dataclass(frozen=True)
class Result:
    """What a finished stage is remembered by. metrics: an evaluation's; log: of the trainer's states, a few rows."""

    metrics: dict[str, Any]
    seconds: float
    device: str
    resumed_from: str | None = None
    log: list[dict[str, float]] | None = None


@dataclass(frozen=True)
class Stage:
    """One training. fresh: starts from a new network, not from what the stage before left."""

    role: Role
    name: str
    trainer: type[LongTailedTrainer]
    args: LongTailedTrainingArguments
    fresh: bool = True

    @property
    def folder(self) -> Path:
        return Path(str(self.args.output_dir))

    @property
    def model_folder(self) -> Path:
        """The network that the stage ended with, and its figures."""
        return self.folder / "model"

    def result(self) -> Result | None:
        """What the stage found, when an earlier run has finished it."""
        path = self.folder / FINISHED
        return Result(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None

    def finish(self, result: Result) -> None:
        """Write the mark that this stage need not be repeated, in one move and after everything else."""
        part = self.folder / f"{FINISHED}.part"
        part.write_text(json.dumps(asdict(result), indent=2) + "\n", encoding="utf-8")
        part.replace(self.folder / FINISHED)

    def forget(self) -> None:
        """Take the mark of an earlier run away."""
        (self.folder / FINISHED).unlink(missing_ok=True)

    def last_checkpoint(self) -> str | None:
        """The last checkpoint that was written to its end: the trainer's state is its last file."""
        if not self.folder.is_dir():
            return None
        whole = [path for path in self.folder.glob("checkpoint-*") if (path / STATE).is_file()]
        newest = max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)
        return None if newest is None else str(newest)

    def has_checkpoint(self) -> bool:
        return self.folder.is_dir() and get_last_checkpoint(str(self.folder)) is not None


def stages_of(settings: Settings) -> list[Stage]:
    """The control (if asked for), stage 1, and stage 2 (unless declined)."""
    folder, options = settings.folder, settings.benchmark
    # Tensors that are on a GPU already cannot be pinned in the CPU's memory.
    loader: dict[str, Any] = {"dataloader_pin_memory": False} if options.data_on_device else {}
    # What is published is the experiment's model, once, at the end; not every stage's checkpoints.
    first = replace(settings.stage1, output_dir=str(folder / "stage1"), push_to_hub=False, **loader)
    stages = [Stage("stage1", "stage 1", CCSAMTrainer, first)]
    if options.control:
        stages.insert(0, Stage("control", "control", CCSAMTrainer, as_control(first, folder)))
    if options.second_stage:
        second = replace(settings.stage2, push_to_hub=False, **loader)
        stages.append(Stage("stage2", "stage 2", ClassifierTrainer, second, fresh=False))
    return stages


def as_control(args: CCSAMTrainingArguments, folder: Path) -> CCSAMTrainingArguments:
    """The same training without the perturbation."""
    plain = default_options(args, PERTURBATION_OPTIONS)
    return replace(args, **plain, perturbation="none", output_dir=str(folder / "control"))


def resuming(args: LongTailedTrainingArguments) -> bool:
    """Whether ``--resume_from_checkpoint`` asks to go on with an interrupted run."""
    return str(args.resume_from_checkpoint or "").lower() not in ("", "false", "none")
