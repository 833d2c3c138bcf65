"""What the first samples tell about the data, the collator and the model before training starts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import nn
from torch.utils.data import IterableDataset
from transformers import DataCollatorWithPadding, PreTrainedModel, default_data_collator
from transformers.trainer_utils import RemoveColumnsCollator

from ..data import check_label_order, found_label_column, labels_of, readable_labels
from ..models import ClassifierHead, find_classifier, replace_classifier
from .label_range import LabelRange
from .ordering import OrderedTrainer


class ProbingTrainer(OrderedTrainer):
    """Refuses data sets and collators that cannot train the model, and finds the model's classifier by running it."""

    _outputs: int | None = None
    _probed: tuple[nn.Module, ClassifierHead] | None = None
    _labels: tuple[Any, np.ndarray] | None = None

    def num_outputs(self) -> int:
        """C of this run's classifier, or of the model's configuration where nothing has been trained yet."""
        return int(self.model.config.num_labels) if self._outputs is None else self._outputs

    def _check_dataset(self) -> None:
        if self.train_dataset is None:
            raise ValueError("Training needs a train_dataset; pass one to the trainer.")
        if not isinstance(self.train_dataset, IterableDataset) and len(self.train_dataset) == 0:
            raise ValueError("The training set is empty; check the split and its filters.")
        if readable_labels(self.train_dataset) and (self._given_counts is None or self._has_label_column()):
            self.training_labels()
        check_label_order(self.train_dataset, self._model_names(), self.label_column)

    @property
    def label_column(self) -> str:
        """``args.label_column``; "labels" where that is "label" and the training set has only the other."""
        return found_label_column(self.train_dataset, self.args.label_column)

    def training_labels(self) -> np.ndarray:
        """Class of each training sample, int64 [N]; a data set that tells its labels by its items only is read once."""
        if self._labels is None or self._labels[0] is not self.train_dataset:
            self._labels = self.train_dataset, labels_of(self.train_dataset, self.label_column)
        return self._labels[1]

    def _has_label_column(self) -> bool:
        return self.label_column in getattr(self.train_dataset, "column_names", [self.label_column])

    def _model_names(self) -> list[str]:
        names = getattr(getattr(self.model, "config", None), "id2label", None) or {}
        return [str(names[label]) for label in sorted(names, key=int)]

    def _find_head(self) -> ClassifierHead:
        """The classifier, found by running the model once per training."""
        if self._probed is not None:
            model, head = self._probed
            if model is self.model and dict(model.named_modules()).get(head.name) is head.module:
                return head
        head = self._probe()
        self._probed = self.model, head
        return head

    def _replace_head(self, kind: str, head: ClassifierHead, **options: Any) -> None:
        """Put a classifier of another kind in the place of ``head``; it needs no probe of its own."""
        self._probed = self.model, ClassifierHead(head.name, replace_classifier(self.model, kind, head.name, **options))

    def _probe(self) -> ClassifierHead:
        batch = self._prepare_inputs(self._first_batch(2))
        if "labels" not in batch:
            raise ValueError(
                f"The collated batch has {sorted(batch)} but no 'labels': name the label column 'label' or 'labels', "
                "or pass a data_collator that does."
            )
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        try:
            return find_classifier(self.model, inputs)
        except TypeError as error:
            raise ValueError(
                f"{type(self.model).__name__} cannot be called with {', '.join(inputs)} by name: pass a transformers "
                f"model; create_model(name, num_labels) makes one of any timm architecture. It said: {error}"
            ) from error

    def _first_batch(self, number: int) -> Any:
        """The first samples as the data loader would hand them over."""
        collate = self._get_collator_with_removed_columns(self.data_collator)
        samples = self._first_samples(number)
        try:
            return collate(samples)
        except (ValueError, TypeError) as error:
            keys = ", ".join(samples[0]) if isinstance(samples[0], Mapping) else type(samples[0]).__name__
            raise ValueError(
                f"The data collator cannot make a batch of the training set's items ({keys}): remove the columns that "
                f"the model does not read, or set remove_unused_columns=True. It said: {error}"
            ) from error

    def _first_samples(self, number: int) -> list[Any]:
        dataset: Any = self.train_dataset
        if isinstance(dataset, IterableDataset):
            return [item for item, _ in zip(dataset, range(number), strict=False)]
        return [dataset[min(i, len(dataset) - 1)] for i in range(number)]

    def checked_collator(self, collate: Any) -> Any:
        """A collator that refuses labels which the classifier does not have, before a batch reaches the device."""
        return LabelRange(collate, self.num_outputs(), self.label_column)

    @property
    def _collator_is_stock(self) -> bool:
        stock = self.data_collator is default_data_collator or isinstance(self.data_collator, DataCollatorWithPadding)
        return stock and isinstance(self.model, PreTrainedModel)

    def _read_columns(self) -> list[str]:
        """What the model's forward names, and the labels."""
        self._set_signature_columns_if_needed()
        return [*(self._signature_columns or ()), self.args.label_column, "labels"]

    def _remove_unused_columns(self, dataset: Any, description: str | None = None) -> Any:
        """Without ``remove_unused_columns`` too, drop what neither a transform nor a collator of the user's can read.

        transformers' own collators make a tensor of every column, which the text beside its tokens is not.
        """
        dataset = super()._remove_unused_columns(dataset, description)
        if self._collator_is_stock and dataset.format["type"] != "custom":
            dataset = dataset.remove_columns([c for c in dataset.column_names if c not in self._read_columns()])
        return dataset

    def _get_collator_with_removed_columns(self, data_collator: Any, description: str | None = None) -> Any:
        collate = super()._get_collator_with_removed_columns(data_collator, description)
        if self._collator_is_stock:
            collate = RemoveColumnsCollator(collate, self._read_columns())
        # Without a description it is the probe's own batch, at a time when nobody knows the number of classes.
        return collate if description is None else self.checked_collator(collate)
