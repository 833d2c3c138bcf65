"""The metrics as `Trainer` wants them: a `compute_metrics` and a `preprocess_logits_for_metrics`."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from transformers import EvalPrediction

from ..shots import ShotThresholds
from .accuracy import ACCURACIES, long_tail_accuracy
from .inputs import ArrayLike, IntArray, counts_array

# Marks an image whose logits are NaN. The check is deferred to the end because raising on one rank would hang the rest.
NOT_A_NUMBER = -1


def predicted_classes(logits: Tensor | tuple[Tensor, ...], labels: Tensor | None = None) -> Tensor:
    """Argmax of the logits, [B]: pass as `preprocess_logits_for_metrics`, so that logits are never gathered.

    `labels` is part of Trainer's calling convention. A model with several outputs passes a tuple, logits first.
    """
    scores = logits[0] if isinstance(logits, tuple) else logits
    return scores.argmax(dim=-1).masked_fill(torch.isnan(scores).any(dim=-1), NOT_A_NUMBER)


@dataclass(frozen=True)
class LongTailMetrics:
    """`compute_metrics` for Trainer: `long_tail_accuracy` without the groups that are absent.

    Absent groups are omitted because Trainer's logs cannot hold None; `metric_names` tells beforehand which keys the
    class counts leave, so that a `metric_for_best_model` that can never appear is refused at the start.

    Example:
        >>> metrics = LongTailMetrics(class_counts=[500, 60])
        >>> metrics.metric_names
        ('accuracy', 'balanced_accuracy', 'many', 'medium')
        >>> metrics(EvalPrediction(predictions=np.array([0, 1]), label_ids=np.array([0, 0])))
        {'accuracy': 0.5, 'balanced_accuracy': 0.5, 'many': 0.5}
    """

    class_counts: ArrayLike
    thresholds: ShotThresholds = field(default_factory=ShotThresholds)

    @property
    def metric_names(self) -> tuple[str, ...]:
        masks = self.thresholds.masks(counts_array(self.class_counts).tolist())
        return tuple(name for name in ACCURACIES if name not in masks or bool(masks[name].any()))

    def __call__(self, outputs: EvalPrediction) -> dict[str, float]:
        predictions, labels = _predictions(outputs), _only(outputs.label_ids)
        if (predictions == NOT_A_NUMBER).any():
            raise ValueError(
                f"The logits of {(predictions == NOT_A_NUMBER).sum()} of {len(predictions)} evaluation images are NaN: "
                "training diverged. Lower the learning rate or the radius, or train in float32."
            )
        figures = long_tail_accuracy(
            predictions,
            labels,
            self.class_counts,
            self.thresholds.many,
            self.thresholds.few,
            self.thresholds.boundaries,
        )
        return {name: value for name, value in figures.items() if value is not None}


def _only(arrays: np.ndarray | tuple[np.ndarray, ...]) -> np.ndarray:
    return arrays[0] if isinstance(arrays, tuple) else arrays


def _predictions(outputs: EvalPrediction) -> IntArray:
    """Class indices, also when the caller left out `predicted_classes` and full logits arrive."""
    values = _only(outputs.predictions)
    return predicted_classes(torch.as_tensor(values)).numpy() if values.ndim == 2 else values
