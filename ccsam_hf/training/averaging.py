"""Stochastic weight averaging: the mean of the weights after the last epochs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, update_bn
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_callback import TrainerControl, TrainerState

AVERAGES = "averaged_weights.safetensors"
COUNT = "number_of_models"


class WeightAverage(TrainerCallback):
    """Averages the trained parameters at the end of every epoch from ``start`` on (0-based).

    P. Izmailov et al., Averaging weights leads to wider optima and better generalization, UAI 2018. Checkpoints keep
    the weights that training goes on with, and the mean beside them; ``apply`` puts the mean into the model.
    """

    def __init__(self, start: float, parameters: Iterable[nn.Parameter]) -> None:
        self.start, self.parameters = start, nn.ParameterList(parameters)
        self.average = AveragedModel(self.parameters)

    @property
    def count(self) -> int:
        """How many models are in the mean."""
        return int(self.average.n_averaged)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        # Rounded, because the epoch of a resumed run is a sum of fractions.
        if round(state.epoch or 0, 3) > self.start:
            self.average.update_parameters(self.parameters)

    def save(self, folder: Path) -> None:
        """Put the mean so far beside a checkpoint."""
        tensors = {str(i): p.detach().contiguous() for i, p in enumerate(self.average.module.parameters())}
        save_file({**tensors, COUNT: self.average.n_averaged.cpu()}, folder / AVERAGES)

    def load(self, folder: Path) -> None:
        """Go on from the mean beside a checkpoint; ValueError where there is none."""
        if not (folder / AVERAGES).is_file():
            raise ValueError(
                f"{folder} has no {AVERAGES}: its run averaged no weights. Resume without averaging_start, or "
                "start anew."
            )
        stored = load_file(folder / AVERAGES)
        self.average.n_averaged.copy_(stored[COUNT])
        with torch.no_grad():
            for i, parameter in enumerate(self.average.module.parameters()):
                parameter.copy_(stored[str(i)])

    @torch.no_grad()
    def apply(self) -> None:
        """Make the mean the model's weights."""
        for parameter, mean in zip(self.parameters, self.average.module.parameters(), strict=True):
            parameter.copy_(mean)


def has_batch_statistics(model: nn.Module) -> bool:
    return any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())


def estimate_statistics(model: nn.Module, inputs: Iterable[Tensor]) -> None:
    """BatchNorm statistics of the model as it is: plain means over batches of ``inputs``, each [B, ...]."""
    update_bn(inputs, model)
