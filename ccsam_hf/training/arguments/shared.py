"""Arguments that both stages share."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from transformers import TrainingArguments

from ...shots import ShotThresholds


def read_mapping(name: str, value: Any) -> dict[str, Any] | None:
    """Options by name, as a mapping or as JSON on the command line; ValueError for anything else."""
    try:
        found = json.loads(value) if isinstance(value, str) else value
    except json.JSONDecodeError as error:
        raise ValueError(f'{name}={value!r} is no JSON ({error}): write it as {{"NAME": VALUE}}.') from error
    if found is not None and not isinstance(found, Mapping):
        raise ValueError(f'{name}={value!r} must map names to values, as {{"NAME": VALUE}}.')
    return None if found is None else dict(found)


@dataclass
class LongTailedTrainingArguments(TrainingArguments):
    """What both stages share. Two inherited defaults differ: ``remove_unused_columns`` is False (transforms read the
    image column) and ``hub_private_repo`` is True."""

    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Drop dataset columns the model does not name; breaks image transforms."}
    )
    hub_private_repo: bool | None = field(
        default=True, metadata={"help": "Create the Hub repository as a private one unless told otherwise."}
    )
    loss: str = field(
        default="cross_entropy", metadata={"help": "Name of the base loss, a key of ccsam_hf.losses.LOSSES."}
    )
    loss_args: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Options of the base loss, as JSON on the command line."}
    )
    label_column: str = field(default="label", metadata={"help": "Column of the training set that holds the labels."})
    many_shot: int = field(default=100, metadata={"help": "Classes with more training images are many-shot."})
    few_shot: int = field(default=20, metadata={"help": "Classes with fewer training images are few-shot."})
    shot_boundaries: str = field(
        default="strict", metadata={"help": "strict (> many, < few) or inclusive (>= many, <= few, as OLTR)."}
    )
    lr_milestones: list[float] | None = field(
        default=None, metadata={"help": "Epochs at which the learning rate is multiplied by lr_decay, after warm-up."}
    )
    lr_decay: float = field(default=0.1, metadata={"help": "Factor of the learning rate at each of lr_milestones."})
    decay_all_parameters: bool = field(
        default=False, metadata={"help": "Weight decay on biases and normalisation layers too, as the papers do."}
    )

    averaging_start: float | None = field(
        default=None,
        metadata={"help": "Epoch from which the weights after each epoch are averaged; the final model is their mean."},
    )
    spectral_norm: bool = field(
        default=False,
        metadata={
            "help": "Divide weights by their largest singular value: in stage 1 those of every convolution and linear "
            "layer but the classifier, in stage 2 the classifier's."
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.loss_args = read_mapping("loss_args", self.loss_args)
        self._check_numbers()
        self._check_averaging()
        self.shots()
        if self.lr_milestones is None and self.lr_decay != 0.1:
            raise ValueError("lr_decay has no effect without lr_milestones; set both or neither.")
        if self.lr_milestones is not None and self.lr_scheduler_type != "linear":
            raise ValueError("lr_milestones replaces the scheduler: leave lr_scheduler_type at its default with it.")

    def _check_numbers(self) -> None:
        """Refuse values that torch and transformers would train with without a word."""
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay must be a finite number of at least 0, got {self.weight_decay}.")
        if self.gradient_accumulation_steps < 1:
            raise ValueError(f"gradient_accumulation_steps must be at least 1, got {self.gradient_accumulation_steps}.")
        if not 0 < self.lr_decay < math.inf:
            raise ValueError(f"lr_decay must be a finite number above 0, got {self.lr_decay}.")
        milestones = self.lr_milestones or []
        if not all(0 <= epoch < math.inf for epoch in milestones):
            raise ValueError(f"lr_milestones must be finite epochs of at least 0, got {milestones}.")
        if len(set(milestones)) < len(milestones):
            raise ValueError(f"lr_milestones={milestones} names an epoch twice: name each once.")

    def _check_averaging(self) -> None:
        if self.averaging_start is None:
            return
        if self.spectral_norm:
            raise ValueError(
                "averaging_start would average weights apart from their singular values: drop spectral_norm."
            )
        if self.load_best_model_at_end:
            raise ValueError("averaging_start makes the final model the mean: leave load_best_model_at_end out.")
        if self.max_steps > 0:
            raise ValueError("averaging_start counts epochs: give num_train_epochs instead of max_steps.")
        if not 0 <= self.averaging_start < self.num_train_epochs:
            raise ValueError(
                f"averaging_start must lie in 0..{self.num_train_epochs:g} epochs (end excluded), got "
                f"{self.averaging_start:g}."
            )

    def shots(self) -> ShotThresholds:
        """The many/medium/few thresholds these arguments name."""
        return ShotThresholds(self.many_shot, self.few_shot, self.shot_boundaries)  # type: ignore[arg-type]
