"""Map-style data sets that know their labels without touching an image."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from torch.utils.data import Dataset


class LabelledDataset(Dataset[dict[str, Any]]):
    """Base of ccsam_hf's data sets: items are dicts, labels are at hand as an array.

    `labels_of`, `class_counts`, `make_long_tailed` and the samplers work on every subclass.
    """

    @property
    @abstractmethod
    def labels(self) -> np.ndarray:
        """Class of each item, int64 [len(self)]."""

    @abstractmethod
    def select(self, positions: Sequence[int] | np.ndarray) -> Self:
        """The items at these positions, in this order."""

    @abstractmethod
    def __getitem__(self, index: int) -> dict[str, Any]: ...

    def __len__(self) -> int:
        return len(self.labels)
