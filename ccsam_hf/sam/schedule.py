"""How the radius grows over training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

ScheduleKind = Literal["constant", "linear", "step"]


@dataclass(frozen=True)
class RadiusSchedule:
    """A factor of the radius as a function of the epoch, a real number that counts from 0.

    0 before ``start``. From there ``constant`` is 1; ``linear`` grows from 0 at ``start`` to 1 at ``start + length``;
    ``step`` grows in ``steps`` equal jumps over ``length`` epochs, the first at ``start`` and the last at the
    beginning of the last of its ``steps`` parts, so that it is 1/steps, 2/steps, ..., 1. Units: epochs.
    """

    kind: ScheduleKind = "constant"
    start: float = 0.0
    length: float = 0.0
    steps: int = 0

    def __post_init__(self) -> None:
        if self.kind not in get_args(ScheduleKind):
            raise ValueError(
                f"radius_schedule={self.kind!r} is not known; choose one of {', '.join(get_args(ScheduleKind))}."
            )
        if not 0 <= self.start < float("inf"):
            raise ValueError(f"radius_start={self.start}: give an epoch of at least 0.")
        if not 0 <= self.length < float("inf") or (self.length > 0) != (self.kind != "constant"):
            raise ValueError(
                f"radius_ramp={self.length} with radius_schedule={self.kind!r}: linear and step need epochs above 0, "
                "constant none."
            )
        if self.steps < 0 or (self.steps > 0) != (self.kind == "step"):
            raise ValueError(
                f"radius_ramp_steps={self.steps} with radius_schedule={self.kind!r}: step needs at least 1, every "
                "other schedule none."
            )

    def factor(self, epoch: float) -> float:
        """The factor at an epoch, between 0 and 1."""
        if epoch < self.start:
            return 0.0
        if self.kind == "constant":
            return 1.0
        progress = (epoch - self.start) / self.length
        if self.kind == "linear":
            return min(progress, 1.0)
        return min(int(progress * self.steps) + 1, self.steps) / self.steps
