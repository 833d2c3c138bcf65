"""Many-, medium- and few-shot classes, told apart by their *training* counts."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

Boundaries = Literal["strict", "inclusive"]
SHOT_GROUPS = ("many", "medium", "few")


@dataclass(frozen=True)
class ShotThresholds:
    """Where many-shot ends and few-shot begins.

    "strict" is the paper's text: many n_c > `many`, few n_c < `few`. "inclusive" is what OLTR and the paper's release
    compute: many n_c >= `many`, few n_c <= `few`. Medium is the rest. The groups differ (ImageNet-LT: 385/479/136
    against 391/463/146 classes), so record `describe()` beside every figure.
    """

    many: int = 100
    few: int = 20
    boundaries: Boundaries = "strict"

    def __post_init__(self) -> None:
        if self.boundaries not in get_args(Boundaries):
            raise ValueError(f"boundaries is {self.boundaries!r}; choose one of {', '.join(get_args(Boundaries))}.")
        smallest_many, largest_few = self._ends()
        if largest_few >= smallest_many:
            raise ValueError(
                f"Shot thresholds many={self.many}, few={self.few} ({self.boundaries}) put a count of "
                f"{smallest_many} into both groups; choose few below many."
            )

    def _ends(self) -> tuple[int, int]:
        """Smallest many-shot count and largest few-shot count, both inclusive."""
        if self.boundaries == "strict":
            return self.many + 1, self.few - 1
        return self.many, self.few

    def masks(self, class_counts: Tensor | Sequence[int]) -> dict[str, Tensor]:
        """Boolean masks [C] under "many", "medium", "few", in this order; every class is in exactly one."""
        counts = torch.as_tensor(class_counts)
        if counts.ndim != 1 or counts.numel() == 0:
            raise ValueError(f"class_counts must list one count for each class, but its shape is {list(counts.shape)}.")
        if bool((counts < 0).any()):
            raise ValueError(f"class_counts of class {int((counts < 0).nonzero()[0])} is negative; count again.")
        smallest_many, largest_few = self._ends()
        many, few = counts >= smallest_many, counts <= largest_few
        return {"many": many, "medium": ~(many | few), "few": few}

    def describe(self) -> dict[str, Any]:
        """The thresholds as plain values, for records and file headers."""
        return asdict(self)
