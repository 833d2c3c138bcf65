"""The slow running mean ū that a relative radius is relative to, kept with the checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_callback import ExportableState, TrainerControl, TrainerState


class RunningUnit(TrainerCallback, ExportableState):
    """ū ← m ū + (1 − m) · mean of u over the samples of a step, the first step setting it outright.

    Micro-batches of one optimizer step all see the ū of the steps before, and ``fold`` then moves it once by the
    sum over micro-batches and processes; so accumulation over k batches equals k processes. The value travels in
    ``trainer_state.json`` and is read back when a run resumes. ū = 0 means that nothing is known yet.
    """

    def __init__(self, momentum: float = 0.99, mean: float = 0.0) -> None:
        self.momentum = momentum
        self.mean = torch.tensor(mean, dtype=torch.float32)
        self._sum = torch.zeros(2)

    def reset(self, momentum: float, device: torch.device) -> None:
        self.momentum, self.mean, self._sum = momentum, torch.zeros((), device=device), torch.zeros(2, device=device)

    def add(self, unit: Tensor, weight: Tensor) -> None:
        """u of each group with the number of the batch's samples in it, both [G]."""
        weight = weight.to(self._sum.dtype)
        self._sum = self._sum + torch.stack([(unit.detach() * weight).sum().float(), weight.sum()])

    def fold(self, reduce: Callable[[Tensor], Tensor]) -> None:
        """Take the step's sums, added over processes by ``reduce``, into the mean."""
        total, count = reduce(self._sum)
        self._sum = torch.zeros_like(self._sum)
        step = total / count.clamp(min=1)
        self.mean = torch.where(self.mean > 0, self.momentum * self.mean + (1 - self.momentum) * step, step)

    def state(self) -> dict[str, Any]:
        return {"args": {"momentum": self.momentum, "mean": self.mean.item()}, "attributes": {}}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        states: Any = state.stateful_callbacks
        stored = states.get(type(self).__name__)
        stored = stored[-1] if isinstance(stored, list) else stored
        if stored:
            self.mean = torch.tensor(stored["args"]["mean"], dtype=torch.float32, device=self._sum.device)
