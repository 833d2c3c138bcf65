"""What losses are given and what they refuse: targets, class counts and options in range."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Target:
    """The target side of a loss: `weight * l(labels) + (1 - weight) * l(other)`, or just `l(labels)`.

    Mixup (Zhang et al. 2018) mixes two images, and the loss is mixed in the same proportion. The two labels are kept
    apart instead of being merged into one soft vector, because margins, class weights and the partition into classes
    are defined for labels.

    Attributes:
        labels: int64 [B].
        other: int64 [B], the second label of every sample, or None for an unmixed batch.
        weight: float [B] in [0, 1], the share of `labels`; given if and only if `other` is.

    Raises:
        ValueError: one of `other` and `weight` without the other, or shapes that differ.
    """

    labels: Tensor
    other: Tensor | None = None
    weight: Tensor | None = None

    def __post_init__(self) -> None:
        if self.labels.ndim != 1 or self.labels.is_floating_point():
            raise ValueError(
                f"labels must be class indices of shape [batch], got {self.labels.dtype} {tuple(self.labels.shape)}; "
                "pass the two labels and the weight of a mixed sample instead of a soft vector"
            )
        if (self.other is None) != (self.weight is None):
            raise ValueError("a mixed target needs both `other` and `weight`; give both or neither")
        for name, value in (("other", self.other), ("weight", self.weight)):
            if value is not None and value.shape != self.labels.shape:
                raise ValueError(f"`{name}` has shape {tuple(value.shape)}, labels {tuple(self.labels.shape)}")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def is_mixed(self) -> bool:
        """Whether a second label takes part."""
        return self.other is not None

    @property
    def dominant(self) -> Tensor:
        """int64 [B]: the label with the larger weight, the first one in a tie. The class that a sample belongs to."""
        if self.other is None or self.weight is None:
            return self.labels
        return torch.where(self.weight >= 0.5, self.labels, self.other)

    def mix(self, value_of: Callable[[Tensor], Tensor]) -> Tensor:
        """`value_of(labels)`, mixed with `value_of(other)` by the weight where there is a second label.

        Without one the value is handed back as it is, so that an unmixed target changes no bit.
        """
        first = value_of(self.labels)
        if self.other is None or self.weight is None:
            return first
        weight = self.weight.to(first.dtype)
        return weight * first + (1 - weight) * value_of(self.other)

    def select(self, index: Tensor | slice) -> "Target":
        """The samples that a boolean mask, an index tensor or a slice picks."""
        if self.other is None or self.weight is None:
            return Target(self.labels[index])
        return Target(self.labels[index], self.other[index], self.weight[index])

    def to(self, device: torch.device | str) -> "Target":
        """The same target on another device."""
        if self.other is None or self.weight is None:
            return Target(self.labels.to(device))
        return Target(self.labels.to(device), self.other.to(device), self.weight.to(device))


def checked_class_counts(
    class_counts: Tensor | Sequence[int] | None, num_classes: int, *, user: str, allow_zero: bool = False
) -> Tensor:
    """The training set's class counts as int64 [C], or the reason why `user` cannot work with them.

    Raises:
        ValueError: no counts, another number of classes, or a class without a training sample.
    """
    if class_counts is None:
        raise ValueError(f"{user} needs the training set's class counts: pass class_counts=, one per class")
    counts = torch.as_tensor(class_counts).detach().cpu()
    if counts.shape != (num_classes,):
        raise ValueError(f"{user} needs {num_classes} class counts, got shape {tuple(counts.shape)}")
    if counts.is_floating_point():
        if not bool((counts == counts.round()).all()):
            raise ValueError(f"{user} needs whole numbers of samples as class counts")
        counts = counts.round()
    smallest = 0 if allow_zero else 1
    bad = torch.nonzero(counts < smallest).flatten().tolist()
    if bad:
        names = ", ".join(f"class {c} ({int(counts[c])})" for c in bad[:5]) + (", ..." if len(bad) > 5 else "")
        raise ValueError(
            f"{user} needs at least {smallest} training sample(s) of every class, but found {names}: "
            "drop these classes, add samples, or choose a loss without class counts"
        )
    return counts.to(torch.int64)


def checked_number(name: str, value: object, *, low: float, below: float = math.inf) -> float:
    """The option as a float in [low, below), or a `ValueError` that names it."""
    if isinstance(value, bool) or not isinstance(value, Real) or not low <= float(value) < below:
        upper = "a finite number" if below == math.inf else f"below {below:g}"
        raise ValueError(f"{name} must be a number, at least {low:g} and {upper}, got {value!r}")
    return float(value)


def checked_choice(name: str, value: object, choices: Sequence[str]) -> str:
    """The option, if it is one of the choices, or a `ValueError` that lists them."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"unknown {name} {value!r}; choose from {', '.join(choices)}")
    return value
