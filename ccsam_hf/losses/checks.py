"""What the losses check before training: class counts that are known and not zero, options that are in range."""

import math
from collections.abc import Sequence
from numbers import Real

import torch
from torch import Tensor


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


def log_prior(class_counts: Tensor) -> Tensor:
    """log pi_c with pi_c = n_c / N; float64 [C]."""
    counts = class_counts.to(torch.float64)
    return counts.log() - counts.sum().log()


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
