"""What the first samples tell about the data, the collator and the model before training starts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.utils.data import IterableDataset

from ..data import labels_of
from ..models import ClassifierHead, find_classifier
from .checks import readable_labels
from .label_range import LabelRange
from .ordering import OrderedTrainer


class ProbingTrainer(OrderedTrainer):
    """Refuses data sets and collators that cannot train the model, and finds the model's classifier by running it."""

    _outputs: int | None = None

    def num_outputs(self) -> int:
        """C of this run's classifier, or of the model's configuration where nothing has been trained yet."""
        return int(self.model.config.num_labels) if self._outputs is None else self._outputs

    def _check_dataset(self) -> None:
        if self.train_dataset is None:
            raise ValueError("Training needs a train_dataset; pass one to the trainer.")
        if not isinstance(self.train_dataset, IterableDataset) and len(self.train_dataset) == 0:
            raise ValueError("The training set is empty; check the split and its filters.")
        if readable_labels(self.train_dataset):
            labels_of(self.train_dataset, self.args.label_column)

    def _find_head(self) -> ClassifierHead:
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
        return LabelRange(collate, self.num_outputs(), self.args.label_column)

    def _get_collator_with_removed_columns(self, data_collator: Any, description: str | None = None) -> Any:
        collate = super()._get_collator_with_removed_columns(data_collator, description)
        # Without a description it is the probe's own batch, at a time when nobody knows the number of classes.
        return collate if description is None else self.checked_collator(collate)
