"""Training counts of the classes, checked once, and the many-, medium- and few-shot groups that they define."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ._shared.choices import checked_choice

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
        checked_choice("boundaries", self.boundaries, get_args(Boundaries))
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

    def masks(self, class_counts: ClassCounts | Tensor | Sequence[int]) -> dict[str, Tensor]:
        """Boolean masks [C] under "many", "medium", "few", in this order; every class is in exactly one."""
        counts = ClassCounts.of(class_counts).tensor
        if isinstance(class_counts, Tensor):
            counts = counts.to(class_counts.device)
        smallest_many, largest_few = self._ends()
        many, few = counts >= smallest_many, counts <= largest_few
        return {"many": many, "medium": ~(many | few), "few": few}

    def describe(self) -> dict[str, Any]:
        """The thresholds as plain values, for records and file headers."""
        return asdict(self)


@dataclass(frozen=True)
class ClassCounts:
    """Training samples of each class in label order, checked when it is made; equal and hashable by value.

    Use `ClassCounts.of` to make one from a list, tensor or dict. It has a length and can be iterated and indexed as a
    list of ints can.

    Args:
        values: one whole number of at least 0 for each class, at least one class.
        names: the classes' names in label order, distinct; none when it is empty.

    Raises:
        ValueError: no class, a count that is no whole number or negative, names of another number or repeated.

    Example:
        >>> counts = ClassCounts.of({"cat": 150, "emu": 3})
        >>> counts.names, counts.imbalance_ratio
        (('cat', 'emu'), 50.0)
        >>> counts.masks()["few"].tolist()
        [False, True]
    """

    values: tuple[int, ...]
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(_whole_counts(self.values)))
        object.__setattr__(self, "names", tuple(str(name) for name in self.names))
        if self.names and len(self.names) != len(self.values):
            raise ValueError(f"{len(self.names)} label names for {len(self.values)} class_counts; give one each.")
        repeated = sorted({name for name in self.names if self.names.count(name) > 1})
        if repeated:
            raise ValueError(f"The label name {repeated[0]!r} stands for more than one class; make names distinct.")

    @classmethod
    def of(
        cls,
        counts: ClassCounts | Tensor | Sequence[int] | Mapping[str, int],
        *,
        num_classes: int | None = None,
        names: Sequence[str] = (),
    ) -> ClassCounts:
        """The counts as this value.

        Args:
            counts: in label order, or by name; a dict is sorted by `names` where they are given, and otherwise gives
                the label order by its own.
            num_classes: number of classes C that the counts must have; any when it is None.
            names: the classes' names in label order.

        Raises:
            ValueError: what the class refuses, another number of classes, or names that the dict does not have.
        """
        if isinstance(counts, ClassCounts):
            found = cls(counts.values, tuple(names) or counts.names)
        elif isinstance(counts, Mapping):
            order = tuple(names) or tuple(counts)
            if set(order) != set(counts):
                wrong = sorted(map(str, set(order) ^ set(counts)))
                raise ValueError(f"class_counts by name do not fit the label names: {', '.join(wrong[:5])}.")
            found = cls(tuple(counts[name] for name in order), order)
        else:
            found = cls(counts, tuple(names))  # type: ignore[arg-type]
        if num_classes is not None and len(found) != num_classes:
            raise ValueError(
                f"class_counts has {len(found)} entries for {num_classes} classes: give one training count for each "
                "class, in label order."
            )
        return found

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[int]:
        return iter(self.values)

    def __getitem__(self, label: int) -> int:
        return self.values[label]

    @property
    def tensor(self) -> Tensor:
        """The counts as int64 [C], a new tensor on the CPU."""
        return torch.tensor(self.values, dtype=torch.int64)

    @property
    def prior(self) -> Tensor:
        """n_c / Σ n_c as float64 [C].

        Raises:
            ValueError: no class has a sample.
        """
        if not sum(self.values):
            raise ValueError("class_counts has no sample in any class; count again.")
        return self.tensor.double() / sum(self.values)

    @property
    def imbalance_ratio(self) -> float | None:
        """Largest over smallest count; None where a class has no sample."""
        return max(self.values) / min(self.values) if min(self.values) else None

    def masks(self, thresholds: ShotThresholds | None = None) -> dict[str, Tensor]:
        """The many-, medium- and few-shot masks [C] by the thresholds, the paper's by default."""
        return (thresholds or ShotThresholds()).masks(self)

    def without_empty(self, user: str) -> ClassCounts:
        """The same counts, for a use that divides by them.

        Args:
            user: what needs them, for the message, such as "loss='balanced_softmax'".

        Raises:
            ValueError: a class has no sample; the message names up to five of them.
        """
        empty = [self.names[c] if self.names else str(c) for c, count in enumerate(self.values) if count == 0]
        if empty:
            more = ", ..." if len(empty) > 5 else ""
            raise ValueError(
                f"{user} needs at least one training sample of every class, but has none of class "
                f"{', '.join(empty[:5])}{more}: drop these classes, add samples, or choose a method without class "
                "counts."
            )
        return self


def _whole_counts(values: Any) -> list[int]:
    """The counts as ints; floats that are whole numbers are accepted, because older files hold them."""
    counts = torch.as_tensor(values).detach().cpu()
    if counts.ndim != 1 or counts.numel() == 0:
        raise ValueError(f"class_counts must list one count for each class, but its shape is {list(counts.shape)}.")
    if counts.dtype == torch.bool or not bool((counts == counts.double().round()).all() & counts.isfinite().all()):
        raise ValueError("class_counts must be whole numbers of at least 0.")
    if bool((counts < 0).any()):
        raise ValueError(f"class_counts of class {int((counts < 0).nonzero()[0])} is negative; count again.")
    return counts.to(torch.int64).tolist()
