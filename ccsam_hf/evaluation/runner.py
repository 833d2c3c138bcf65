"""One pass of a model over a data set, shared between processes, and the options of an evaluation.

Batch k always holds the same images and goes to process k mod P, so every image meets the same arithmetic whatever the
number P of processes: figures of any set-up are identical. Nothing is padded and nothing counted twice. Logits are
dropped batch by batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self, get_args

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import default_data_collator

from ..metrics.calibration import DEFAULT_BINS
from ..metrics.inputs import EMPTY_SPLIT
from ..models import FeatureTap, find_classifier
from ..shots import ShotThresholds

Columns = dict[str, np.ndarray]
Collate = Callable[[list[Any]], Mapping[str, Any]]
SourcePrior = Literal["train", "uniform"]


@dataclass(frozen=True)
class EvaluationOptions:
    """How the closed-set figures are made.

    logit_adjustment: τ of post-hoc logit adjustment, for every figure (0: logits as they are).
    targets: shifted test distributions to report, such as "forward-50", "uniform", "backward-50".
    source_prior: the class prior that the logits presume, which a target's prior replaces: "train" (cross entropy),
        "uniform" (class-balanced training, balanced softmax). By default what the checkpoint records
        (config.training_prior); where it records nothing, figures with the target's prior are left out.
    bootstrap: replicates behind the confidence intervals (0: none); level: their coverage.
    """

    thresholds: ShotThresholds = field(default_factory=ShotThresholds)
    calibration_bins: int = DEFAULT_BINS
    logit_adjustment: float = 0.0
    targets: tuple[str, ...] = ()
    source_prior: SourcePrior | None = None
    bootstrap: int = 1000
    level: float = 0.95
    seed: int = 0
    batch_size: int = 256
    num_workers: int = 0
    progress: bool = True

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size is {self.batch_size}; use at least 1.")
        if self.bootstrap < 0:
            raise ValueError(f"bootstrap is {self.bootstrap}; use 0 for no intervals, 1000 for usual ones.")
        if self.bootstrap == 0 and (self.level, self.seed) != (0.95, 0):
            raise ValueError("level and seed belong to the bootstrap and have no effect with bootstrap=0.")
        if self.source_prior not in (None, *get_args(SourcePrior)):
            raise ValueError(
                f"source_prior is {self.source_prior!r}; choose one of {', '.join(get_args(SourcePrior))}."
            )
        if self.source_prior is not None and not self.targets:
            raise ValueError(
                "source_prior corrects predictions for shifted test sets and has no effect without targets."
            )


@dataclass(frozen=True)
class BatchOutput:
    """What the model made of a batch: labels [B] in the checkpoint's order, logits [B, C], features [B, D] or None."""

    labels: Tensor
    logits: Tensor
    features: Tensor | None


@dataclass
class Runner:
    """A model in evaluation mode under an Accelerator, and how its data are batched.

    mapping: the checkpoint's class of each class of the data; shift: added to the logits, [C].
    """

    model: nn.Module
    accelerator: Accelerator
    mapping: Tensor
    shift: Tensor
    batch_size: int
    num_workers: int = 0
    progress: bool = True
    collate: Collate = default_data_collator
    tap: FeatureTap | None = None

    def __enter__(self) -> Self:
        self._was_training = self.model.training
        self.model.eval()
        return self

    def __exit__(self, *error: object) -> None:
        """Leave the model as it was found."""
        self.model.train(self._was_training)
        if self.tap is not None:
            self.tap.remove()

    def tap_features(self, dataset: Any) -> int:
        """Have the next passes deliver the classifier's input, found by running the model; returns its width D."""
        inputs, _ = self._inputs(self.collate([dataset[i] for i in range(min(len(dataset), 2))]))
        head = find_classifier(self.model, inputs).module
        self.tap = FeatureTap(head)
        return head.in_features

    def run(self, dataset: Any, measure: Callable[[BatchOutput], Mapping[str, Tensor]], title: str) -> Columns:
        """Per-image columns of `measure`, in the data set's order, the same on every process.

        A ValueError on one process is raised on all of them, so that none waits for ever.
        """
        if len(dataset) == 0:
            raise ValueError(EMPTY_SPLIT)
        columns: list[Columns] = []
        error = None
        try:
            for index, output in self._outputs(dataset, title):
                measured = {name: value.cpu().numpy() for name, value in measure(output).items()}
                columns.append({"index": np.asarray(index), **measured})
        except ValueError as caught:
            error = str(caught)
        return _in_order(gather_object([(columns, error)]))

    def sum(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Sum int64 tensors over all processes."""
        device = self.accelerator.device
        return self.accelerator.reduce({name: value.to(device) for name, value in state.items()}, reduction="sum")

    def _outputs(self, dataset: Any, title: str) -> Iterator[tuple[list[int], BatchOutput]]:
        batches = shard(len(dataset), self.batch_size, self.accelerator.process_index, self.accelerator.num_processes)
        loader = DataLoader(dataset, batch_sampler=batches, collate_fn=self.collate, num_workers=self.num_workers)
        quiet = not (self.progress and self.accelerator.is_main_process)
        for index, batch in zip(batches, tqdm(loader, desc=title, disable=quiet, leave=False), strict=True):
            yield index, self._forward(batch)

    @torch.no_grad()
    def _forward(self, batch: Mapping[str, Any]) -> BatchOutput:
        inputs, labels = self._inputs(batch)
        if self.tap is not None:
            self.tap.clear()
        with self.accelerator.autocast():
            outputs = self.model(**inputs)
        features = None if self.tap is None else self.tap.features
        logits = outputs.logits
        if logits.device.type == "mps":  # has no float64, which the figures are made in
            logits, labels = logits.cpu(), labels.cpu()
            features = None if features is None else features.cpu()
        if logits.shape[1:] != self.shift.shape:
            raise ValueError(
                f"The model's logits have shape {list(logits.shape)} but its config names {len(self.shift)} classes; "
                "use a classifier with one logit for each class."
            )
        adjusted = logits.double() + self.shift.to(logits.device)
        return BatchOutput(self._translated(labels), adjusted, features)

    def _inputs(self, batch: Mapping[str, Any]) -> tuple[dict[str, Any], Tensor]:
        device = self.accelerator.device
        moved = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()}
        if "labels" not in moved:
            raise ValueError("The batches have no 'labels'; give each item a 'labels' entry, -1 for open images.")
        labels = moved.pop("labels")
        return moved, labels

    def _translated(self, labels: Tensor) -> Tensor:
        """The checkpoint's labels; -1 (open) stays."""
        if labels.numel() and (int(labels.min()) < -1 or int(labels.max()) >= len(self.mapping)):
            raise ValueError(
                f"Labels span {int(labels.min())}..{int(labels.max())} but there are {len(self.mapping)} classes; "
                "evaluate on the data set the checkpoint was trained for."
            )
        return torch.where(labels < 0, -1, self.mapping.to(labels.device)[labels.clamp(min=0)])


def shard(size: int, batch_size: int, process: int, processes: int) -> list[list[int]]:
    """The batches of one process: every P-th batch of the sequence 0..size-1."""
    starts = range(0, size, batch_size)[process::processes]
    return [list(range(start, min(start + batch_size, size))) for start in starts]


def _in_order(shares: list[tuple[list[Columns], str | None]]) -> Columns:
    errors = [error for _, error in shares if error]
    if errors:
        raise ValueError(errors[0])
    batches = [batch for columns, _ in shares for batch in columns]
    joined = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    order = np.argsort(joined.pop("index"), kind="stable")
    return {name: values[order] for name, values in joined.items()}
