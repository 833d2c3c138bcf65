"""What a step may ask of the trainer, and of the batch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...losses import Target, batch_class_counts, class_coefficients
from ...sam import Groups, Partition
from ..sample_loss import SampleLoss


@dataclass(frozen=True)
class StepContext:
    """One micro-batch and the trainer's functions around it.

    ``forward`` runs the wrapped model on the inputs and returns logits [B, C]; ``loss_of`` makes the base loss of the
    batch from its logits' shape; ``features`` is the classifier's input of the last forward; ``no_sync`` keeps a
    backward pass inside this process; ``reduce`` sums over processes, ``gather`` concatenates; ``report`` logs
    scalars; ``generator`` is seeded by (seed, step, place of the micro-batch) on the device it is given.
    """

    inputs: dict[str, Any]
    target: Target
    class_counts: Tensor
    model: nn.Module
    forward: Callable[[dict[str, Any]], Tensor]
    loss_of: Callable[[Tensor, Target], SampleLoss]
    features: Callable[[], Tensor]
    no_sync: Callable[[], AbstractContextManager[Any]]
    backward: Callable[[Tensor], None]
    reduce: Callable[[Tensor], Tensor]
    gather: Callable[[Tensor], Tensor]
    report: Callable[..., None]
    generator: Callable[[torch.device], torch.Generator]
    processes: int

    def groups(self, partition: Partition) -> Groups:
        return partition(self.target.dominant, self.class_counts, self.generator(torch.device("cpu")))

    def sample_weights(self, loss: SampleLoss, joined: bool, dtype: torch.dtype) -> Tensor:
        """w_i [B] with Σ w_i l_i = the reduced loss; with ``joined`` this process's share of the reduction over the
        batch of all processes, times their number, as an average over processes wants it."""
        counts = batch_class_counts(self.target.dominant, len(self.class_counts))
        coefficients = class_coefficients(
            self.reduce(counts) if joined else counts,
            loss.reduction,
            class_weights=loss.loss.class_weights(loss.epoch),
            divide_by=loss.loss.mean_divides_by,
            class_counts=self.class_counts,
            dtype=dtype,
        )
        return coefficients[self.target.dominant] * (self.processes if joined else 1)


def combined(clean: Tensor, perturbed: Tensor, flat_weight: float) -> Tensor:
    """(1 − a) · L + a · L_perturbed."""
    return perturbed if flat_weight == 1 else (1 - flat_weight) * clean + flat_weight * perturbed
