"""Options refused with one wording: names that are not known, and numbers out of range."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from numbers import Integral, Real


def nearest(value: object, choices: Iterable[str]) -> str | None:
    """The choice spelled most like the value, None where no choice is near."""
    near = difflib.get_close_matches(str(value), [str(choice) for choice in choices], n=1)
    return near[0] if near else None


def unknown(name: str, value: object, choices: Iterable[str]) -> ValueError:
    """The error for a value that is none of the choices; to be raised by the caller.

    Args:
        name: the option as the user writes it, such as "perturbation" or "--dataset".
        value: what was given.
        choices: what would have been accepted, in the order to be shown.

    Example:
        >>> str(unknown("reduction", "meen", ("mean", "sum")))
        "reduction='meen' is not known; choose one of mean, sum. Did you mean 'mean'?"
    """
    names = [str(choice) for choice in choices]
    near = nearest(value, names)
    hint = f" Did you mean {near!r}?" if near else ""
    return ValueError(f"{name}={value!r} is not known; choose one of {', '.join(names)}.{hint}")


def checked_choice(name: str, value: object, choices: Iterable[str]) -> str:
    """The value, if it is one of the choices.

    Raises:
        ValueError: the value is none of them; the message lists all and the nearest.
    """
    names = list(choices)
    if not isinstance(value, str) or value not in names:
        raise unknown(name, value, names)
    return value


def checked_number(
    name: str,
    value: object,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
) -> float:
    """The value as a finite float within the bounds. NaN, infinities, booleans and text are refused.

    Raises:
        ValueError: the message names the option, the range and the value.

    Example:
        >>> checked_number("tau", 1, at_least=0)
        1.0
        >>> checked_number("tau", float("nan"), at_least=0)
        Traceback (most recent call last):
        ValueError: tau must be a finite number of at least 0, got nan.
    """
    number = _finite(value)
    if number is None or not _inside(number, at_least, above, at_most, below):
        raise ValueError(f"{name} must be a finite number{_range(at_least, above, at_most, below)}, got {value!r}.")
    return number


def checked_whole(name: str, value: object, *, at_least: int | None = None, at_most: int | None = None) -> int:
    """The value as an int within the bounds; 3.0, booleans and text are refused.

    Raises:
        ValueError: the message names the option, the range and the value.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or not _inside(int(value), at_least, None, at_most):
        raise ValueError(f"{name} must be a whole number{_range(at_least, None, at_most, None)}, got {value!r}.")
    return int(value)


def _finite(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        return None
    return float(value)


def _inside(
    number: float, at_least: float | None, above: float | None, at_most: float | None, below: float | None = None
) -> bool:
    return (
        (at_least is None or number >= at_least)
        and (above is None or number > above)
        and (at_most is None or number <= at_most)
        and (below is None or number < below)
    )


def _range(at_least: float | None, above: float | None, at_most: float | None, below: float | None) -> str:
    bounds = {"of at least": at_least, "above": above, "of at most": at_most, "below": below}
    words = [f"{word} {bound:g}" for word, bound in bounds.items() if bound is not None]
    return f" {' and '.join(words)}" if words else ""
