"""Order of the samples, learning rate and weight decay of a run."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torch.utils.data import IterableDataset
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_callback import TrainerControl, TrainerState

from ..data import ClassSampler
from .regularised import RegularisedTrainer
from .schedule import milestone_factor


class RunEvents(TrainerCallback):
    """Tells the trainer where the run stands; Trainer itself loses the epoch when several processes resume."""

    def __init__(self, trainer: OrderedTrainer) -> None:
        self.trainer = trainer

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.trainer.epoch = int(state.epoch or 0)
        if isinstance(self.trainer.sampler, ClassSampler):
            self.trainer.sampler.set_epoch(self.trainer.epoch)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.trainer.micro_batch = 0

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.trainer.end_accumulation()


class OrderedTrainer(RegularisedTrainer):
    """The order of samples is a pure function of (seed, epoch); the learning rate may fall at milestones, and every
    parameter may decay."""

    optimizer: Any

    def __init__(self, *trainer_arguments: Any, **trainer_options: Any) -> None:
        super().__init__(*trainer_arguments, **trainer_options)
        self.epoch = 0
        self.micro_batch = 0
        self.sampler: Any = None
        self.add_callback(RunEvents(self))

    def end_accumulation(self) -> None:
        """Called once for every optimizer step, after its last backward pass."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        if isinstance(dataset, IterableDataset) or self.args.train_sampling_strategy != "random":
            self.sampler = super()._get_train_sampler(train_dataset)
        else:
            self.sampler = self._make_sampler(dataset)
        return self.sampler

    def _make_sampler(self, dataset: Any) -> ClassSampler:
        """Every sample once an epoch; the labels do not matter for that order."""
        return ClassSampler(np.zeros(len(dataset), dtype=np.int64), "instance", self.sampling_seed)

    @property
    def sampling_seed(self) -> int:
        return self.args.seed if self.args.data_seed is None else self.args.data_seed

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> LRScheduler:
        if self.args.lr_milestones is None:
            return super().create_scheduler(num_training_steps, optimizer)
        if self.lr_scheduler is None:
            factor = partial(
                milestone_factor,
                steps_per_epoch=num_training_steps / self._epochs_of(num_training_steps),
                warmup_steps=self.args.get_warmup_steps(num_training_steps),
                milestones=self.args.lr_milestones,
                decay=self.args.lr_decay,
            )
            self.lr_scheduler = LambdaLR(self.optimizer if optimizer is None else optimizer, factor)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def _epochs_of(self, num_training_steps: int) -> float:
        if self.args.max_steps <= 0:
            return float(self.args.num_train_epochs)
        steps_per_epoch = math.ceil(num_training_steps / max(self.state.num_train_epochs, 1))
        return num_training_steps / steps_per_epoch

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        if self.args.decay_all_parameters:
            return [name for name, _ in model.named_parameters()]
        return super().get_decay_parameter_names(model)
