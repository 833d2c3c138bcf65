"""One pass of a model over a data set, shared between processes, logits dropped batch by batch.

Batch k always holds the same images and goes to process k mod P, so every image meets the same arithmetic whatever the
number P of processes: figures of any set-up are identical. Nothing is padded and nothing counted twice.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import default_data_collator

from ccsam_hf.metrics.inputs import EMPTY_SPLIT
from ccsam_hf.models import FeatureTap, find_classifier

Columns = dict[str, np.ndarray]
Collate = Callable[[list[Any]], Mapping[str, Any]]


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


def _in_order(parts: list[tuple[list[Columns], str | None]]) -> Columns:
    errors = [error for _, error in parts if error]
    if errors:
        raise ValueError(errors[0])
    pieces = [piece for columns, _ in parts for piece in columns]
    joined = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
    order = np.argsort(joined.pop("index"), kind="stable")
    return {name: values[order] for name, values in joined.items()}
