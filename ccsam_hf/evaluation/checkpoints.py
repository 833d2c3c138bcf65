"""The checkpoint under evaluation: its network, its classes matched by name with those of the data, its inputs."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import PreTrainedModel

from ..inference import Classifier, ImageTransform, load_classifier, open_image
from ..metrics.inputs import FloatArray
from ..metrics.open_set import OPEN

ModelSource = PreTrainedModel | Classifier | str | os.PathLike[str]
PLACEHOLDER = re.compile(r"LABEL_\d+")


@dataclass(frozen=True)
class EvaluatedModel:
    """A checkpoint: its network and what its configuration records.

    transform is None when the data hold the model's inputs already.
    """

    model: PreTrainedModel
    num_classes: int
    label_names: list[str] | None
    class_counts: list[int] | None
    training_prior: str | Sequence[float] | Tensor | None
    transform: ImageTransform | None = None

    def inputs(self, dataset: Any, image_column: str, label_column: str) -> Any:
        """The data set as items of model inputs and "labels"."""
        return dataset if self.transform is None else RawImages(dataset, self.transform, image_column, label_column)


def evaluated_model(source: ModelSource, device: torch.device) -> EvaluatedModel:
    """The network and the record of a model, a loaded classifier, or a folder or Hub id."""
    if isinstance(source, PreTrainedModel):
        return _of_model(source)
    if isinstance(source, nn.Module):
        raise ValueError(
            f"{type(source).__name__} is not a transformers model; pass a folder, a PreTrainedModel (of a PEFT model "
            "merge_and_unload(), of a wrapped model the one inside), or what load_classifier returns."
        )
    classifier = source if isinstance(source, Classifier) else load_classifier(source, device=device)
    classes = len(classifier.label_names)
    names = checkpoint_names(dict(enumerate(classifier.label_names)), classes)
    prior = classifier.training_prior
    return EvaluatedModel(classifier.model, classes, names, classifier.class_counts, prior, classifier.transform)


def _of_model(model: PreTrainedModel) -> EvaluatedModel:
    id2label = model.config.id2label or {}
    record = model.config.to_dict()
    names = checkpoint_names(id2label, len(id2label))
    return EvaluatedModel(model, len(id2label), names, record.get("class_counts"), record.get("training_prior"))


class RawImages(Dataset[dict[str, Any]]):
    """Raw images under the checkpoint's own test transform; label -1 where the data have no label column."""

    def __init__(self, dataset: Any, transform: ImageTransform, image_column: str, label_column: str) -> None:
        self.dataset, self.transform = dataset, transform
        self.image_column, self.label_column = image_column, label_column

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.dataset[index]
        if self.image_column not in row:
            raise ValueError(
                f"The data have no column {self.image_column!r} among {', '.join(row)}; name image_column."
            )
        pixels = self.transform(open_image(row[self.image_column], index))
        return {"pixel_values": pixels, "labels": int(row.get(self.label_column, OPEN))}


class OpenImages(Dataset[dict[str, Any]]):
    """Items of unknown classes: whatever label they bear becomes -1."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        inputs = {name: value for name, value in self.dataset[index].items() if name not in ("label", "labels")}
        return {**inputs, "labels": OPEN}


def checkpoint_names(id2label: Mapping[Any, str] | None, num_classes: int) -> list[str] | None:
    """Class names of a checkpoint in label order; None when it has none but transformers' placeholders."""
    names = [str(id2label[c]) for c in sorted(id2label, key=int)] if id2label else []
    if len(names) != num_classes or all(PLACEHOLDER.fullmatch(name) for name in names):
        return None
    return names


def match_labels(dataset: Sequence[str] | None, checkpoint: Sequence[str] | None, num_classes: int) -> Tensor:
    """The checkpoint's class of each of the data set's classes, LongTensor.

    Names in another order are matched; the data set may have fewer classes than the checkpoint. Where one side has no
    names, labels are taken as they are, provided that the data set has no more classes than the checkpoint.

    Raises:
        ValueError: a name the checkpoint does not know, names that occur twice in different order, or too many classes.
    """
    if dataset is None or checkpoint is None:
        classes = num_classes if dataset is None else len(dataset)
        if classes > num_classes:
            raise ValueError(
                f"The data set has {classes} classes, the checkpoint {num_classes}, and there are no names to match "
                "them by; evaluate on the data set the checkpoint was trained for."
            )
        return torch.arange(classes)
    if list(dataset) == list(checkpoint):
        return torch.arange(num_classes)
    position = {name: c for c, name in enumerate(checkpoint)}
    if len(position) < len(checkpoint) or len(set(dataset)) < len(dataset):
        raise ValueError(
            "The label names of data set and checkpoint are in different order and some occur twice, so they cannot be "
            "matched; give every class its own name."
        )
    unknown = [name for name in dataset if name not in position]
    if unknown:
        raise ValueError(
            f"{len(unknown)} of the data set's {len(dataset)} classes are unknown to the checkpoint, the first is "
            f"{unknown[0]!r}; the checkpoint knows {', '.join(map(repr, checkpoint[:3]))}, ... Evaluate on the data "
            "set it was trained for, or rename its classes (config.id2label) to match."
        )
    return torch.tensor([position[name] for name in dataset])


def shown_names(checkpoint: Sequence[str] | None, dataset: Sequence[str] | None, num_classes: int) -> list[str]:
    """What to call each of the checkpoint's classes: its names, else the data set's, else numbers."""
    if checkpoint is not None:
        return list(checkpoint)
    given = list(dataset or [])
    return [*given, *map(str, range(len(given), num_classes))]


def training_counts(
    given: Tensor | Sequence[int] | None, recorded: Sequence[int] | None, mapping: Tensor, num_classes: int
) -> Tensor:
    """Training counts in the checkpoint's order, [C].

    given: in the data set's order; recorded: `config.class_counts`. The given ones win, with a warning when they
    differ, because they decide which classes are many-, medium- and few-shot.
    """
    if given is None and recorded is None:
        raise ValueError(
            "The checkpoint records no class counts (config.class_counts), so many-, medium- and few-shot classes are "
            "unknown; pass class_counts, the number of training images of each class."
        )
    if recorded is not None and len(recorded) != num_classes:
        raise ValueError(
            f"config.class_counts has {len(recorded)} entries but the checkpoint {num_classes} classes; repair the "
            "config or pass class_counts."
        )
    if given is None:
        return torch.as_tensor(recorded)
    counts = torch.as_tensor(given)
    if counts.shape != mapping.shape:
        raise ValueError(f"{counts.numel()} class_counts for {len(mapping)} classes; pass one count for each class.")
    placed = torch.zeros(num_classes, dtype=torch.long)
    placed[mapping] = counts.long()
    if recorded is not None and placed.tolist() != list(recorded):
        warnings.warn(
            "class_counts differ from those the checkpoint was trained with (config.class_counts); the shot groups "
            "follow the ones given.",
            stacklevel=3,
        )
    return placed


def source_distribution(prior: str | Sequence[float] | Tensor | None, counts: Tensor) -> FloatArray | None:
    """The class distribution [C] that the logits presume; None when the checkpoint records none."""
    if prior is None:
        return None
    if isinstance(prior, str) and prior not in ("train", "uniform"):
        raise ValueError(f"The checkpoint's training_prior is {prior!r}; pass source_prior 'train' or 'uniform'.")
    named = {"train": counts.tolist(), "uniform": [1.0] * len(counts)}
    values = named[prior] if isinstance(prior, str) else prior
    weights = np.asarray(values, dtype=np.float64)
    if weights.shape != (len(counts),):
        raise ValueError(f"The checkpoint's training_prior has {weights.size} entries for {len(counts)} classes.")
    return weights / weights.sum()
