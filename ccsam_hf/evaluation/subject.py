"""What is evaluated: a model, how raw images become its inputs, and what the checkpoint says about its training."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import PreTrainedModel

from ccsam_hf.evaluation.labels import checkpoint_names
from ccsam_hf.inference import Classifier, ImageTransform, load_classifier, open_image
from ccsam_hf.metrics.inputs import FloatArray
from ccsam_hf.metrics.open_set import OPEN

ModelSource = PreTrainedModel | Classifier | str | os.PathLike[str]


@dataclass(frozen=True)
class Subject:
    """A checkpoint under evaluation. transform is None when the data hold the model's inputs already."""

    model: PreTrainedModel
    num_classes: int
    label_names: list[str] | None
    class_counts: list[int] | None
    training_prior: str | Sequence[float] | Tensor | None
    transform: ImageTransform | None = None

    def inputs(self, dataset: Any, image_column: str, label_column: str) -> Any:
        """The data set as items of model inputs and "labels"."""
        return dataset if self.transform is None else RawImages(dataset, self.transform, image_column, label_column)


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


def subject_of(source: ModelSource, device: torch.device) -> Subject:
    """The subject behind a model, a loaded classifier, or a folder or Hub id."""
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
    return Subject(classifier.model, classes, names, classifier.class_counts, prior, classifier.transform)


def _of_model(model: PreTrainedModel) -> Subject:
    id2label = model.config.id2label or {}
    record = model.config.to_dict()
    names = checkpoint_names(id2label, len(id2label))
    return Subject(model, len(id2label), names, record.get("class_counts"), record.get("training_prior"))


def source_distribution(prior: str | Sequence[float] | Tensor | None, counts: Tensor) -> FloatArray | None:
    """The class distribution [C] that the logits presume; None when nobody says."""
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
