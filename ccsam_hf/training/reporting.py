"""Many/medium/few metrics and the figures of the steps, as Trainer's logs want them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import EvalPrediction
from transformers.trainer_utils import PredictionOutput

from ..data import readable_labels
from ..metrics import LongTailMetrics, predicted_classes
from .meters import ScalarMeter
from .publishing import PublishingTrainer


class ReportingTrainer(PublishingTrainer):
    """Adds ``class_counts`` and, unless others are given, long-tail metrics for which logits are never gathered."""

    model: Any
    train_dataset: Any

    def __init__(
        self, *trainer_arguments: Any, class_counts: Tensor | Sequence[int] | None = None, **trainer_options: Any
    ) -> None:
        super().__init__(*trainer_arguments, **trainer_options)
        self._given_counts = class_counts
        self.class_counts: Tensor | None = None
        self.scalars = ScalarMeter()
        if self.compute_metrics is None:
            if self.args.batch_eval_metrics:
                raise ValueError(
                    "batch_eval_metrics needs compute_metrics of your own: many/medium/few accuracy is computed from "
                    "predicted classes, which need no saving; leave batch_eval_metrics out."
                )
            self.compute_metrics = self._long_tail_metrics
            self.preprocess_logits_for_metrics = self.preprocess_logits_for_metrics or predicted_classes

    def sum_over_processes(self, values: Tensor) -> Tensor:
        return self.accelerator.reduce(values, reduction="sum")

    def step_report(self) -> dict[str, float]:
        """Figures of the steps since the last log."""
        return self.scalars.report(self.sum_over_processes)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs.update(self.step_report())
        super().log(logs, start_time)

    def training_labels(self) -> np.ndarray:
        """Class of each training sample, int64 [N]."""
        raise NotImplementedError

    def predict(self, test_dataset: Any, *arguments: Any, **options: Any) -> PredictionOutput:
        """As Trainer's: ``predictions`` are the logits [N, C], though ``evaluate`` gathers predicted classes only."""
        kept = self.preprocess_logits_for_metrics
        if kept is predicted_classes:
            self.preprocess_logits_for_metrics = None
        try:
            return super().predict(test_dataset, *arguments, **options)
        finally:
            self.preprocess_logits_for_metrics = kept

    def _long_tail_metrics(self, outputs: EvalPrediction) -> dict[str, float]:
        return LongTailMetrics(self._known_counts().tolist(), self.args.shots())(outputs)

    def _known_counts(self) -> Tensor:
        """Class counts of this run, else those given, else those the model was trained with, else the data's."""
        if self.class_counts is not None:
            return self.class_counts
        if self._given_counts is not None:
            return torch.as_tensor(self._given_counts)
        recorded = getattr(self.model.config, "class_counts", None)
        if recorded is not None:
            return torch.as_tensor(recorded)
        if self.train_dataset is not None and readable_labels(self.train_dataset):
            labels = torch.from_numpy(self.training_labels().copy())
            return torch.bincount(labels, minlength=self.model.config.num_labels)
        raise ValueError("The class counts of the training set are not known: pass class_counts to the trainer.")
