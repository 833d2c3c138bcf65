"""Labels that nobody could read beforehand, checked batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class LabelRange:
    """A collator that passes on what ``collate`` makes, and raises ValueError for a label outside 0..C-1.

    Runs where batches are made (in the loader's workers), so that no device waits for it; a batch that is on a device
    already is passed on. Labels of streams and of data sets that tell theirs with their items only are seen here for
    the first time.
    """

    collate: Callable[[Any], Any]
    num_classes: int
    label_column: str

    def __call__(self, items: Any) -> Any:
        batch = self.collate(items)
        labels = batch.get("labels") if isinstance(batch, Mapping) else None
        if isinstance(labels, Tensor) and labels.device.type == "cpu" and labels.numel() and not _is_soft(labels):
            smallest, largest = (int(value) for value in torch.aminmax(labels))
            if smallest < 0 or largest >= self.num_classes:
                wrong = smallest if smallest < 0 else largest
                raise ValueError(
                    f"A batch holds label {wrong} in column {self.label_column!r}, but the classifier has "
                    f"{self.num_classes} classes, 0..{self.num_classes - 1}: correct or drop such items, or build the "
                    "model with more classes."
                )
        return batch


def _is_soft(labels: Tensor) -> bool:
    return labels.is_floating_point() or labels.is_complex()
