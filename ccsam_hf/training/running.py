"""What the radius remembers of earlier steps, kept with the checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_callback import ExportableState, TrainerControl, TrainerState

from ..sam import NormState


class RunningUnit(TrainerCallback, ExportableState):
    """ū ← m ū + (1 − m) · mean of u over the samples of a step, the first step setting it outright.

    Micro-batches of one optimizer step all see the ū of the steps before, and ``fold`` then moves it once by the
    sum over micro-batches and processes; so accumulation over k batches equals k processes. The value travels in
    ``trainer_state.json`` and is read back when a run resumes. ū = 0 means that nothing is known yet.

    Beside it ``norms``, the state of unbiased gradient norms, None while the run has none.
    """

    def __init__(
        self, momentum: float = 0.99, mean: float = 0.0, norms: Mapping[str, list[float] | float] | None = None
    ) -> None:
        self.momentum = momentum
        self.mean = torch.tensor(mean, dtype=torch.float32)
        self._sum = torch.zeros(2)
        self.norms = _norm_state(norms, torch.device("cpu"))

    def reset(self, momentum: float, device: torch.device) -> None:
        self.momentum, self.mean, self._sum = momentum, torch.zeros((), device=device), torch.zeros(2, device=device)
        self.norms = None

    def norm_state(self, groups: int) -> NormState:
        """The state of unbiased norms, empty at the beginning of a run."""
        return NormState.empty(groups, self._sum.device) if self.norms is None else self.norms

    def add(self, unit: Tensor, weight: Tensor) -> None:
        """u of each group with the number of the batch's samples in it, both [G]."""
        weight = weight.to(self._sum.dtype)
        self._sum = self._sum + torch.stack([(unit.detach() * weight).sum().float(), weight.sum()])

    def fold(self, reduce: Callable[[Tensor], Tensor]) -> None:
        """Take the step's sums, added over processes by ``reduce``, into the mean."""
        total, count = reduce(self._sum)
        self._sum = torch.zeros_like(self._sum)
        step = total / count.clamp(min=1)
        moved = torch.where(self.mean > 0, self.momentum * self.mean + (1 - self.momentum) * step, step)
        # A step whose gradients all overflowed tells nothing.
        self.mean = torch.where(count > 0, moved, self.mean)

    def state(self) -> dict[str, Any]:
        norms = (
            None if self.norms is None else {f.name: getattr(self.norms, f.name).tolist() for f in fields(NormState)}
        )
        return {"args": {"momentum": self.momentum, "mean": self.mean.item(), "norms": norms}, "attributes": {}}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        states: Any = state.stateful_callbacks
        stored = states.get(type(self).__name__)
        stored = stored[-1] if isinstance(stored, list) else stored
        if stored:
            self.mean = torch.tensor(stored["args"]["mean"], dtype=torch.float32, device=self._sum.device)
            self.norms = _norm_state(stored["args"]["norms"], self._sum.device)


def _norm_state(stored: Mapping[str, list[float] | float] | None, device: torch.device) -> NormState | None:
    if stored is None:
        return None
    return NormState(**{name: torch.tensor(v, dtype=torch.float64, device=device) for name, v in stored.items()})
