"""What is analysed, and how finely: named choices, checked once."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from ccsam_hf.sharpness.scopes import SCOPES
from ccsam_hf.shots import SHOT_GROUPS, ShotThresholds

PARTS = ("noise", "landscape", "radii", "bound", "curvature", "sharpness")
DIRECTIONS = ("random", "gradient")


@dataclass(frozen=True)
class Sizes:
    """How many samples and points are taken; `None` leaves the number to the budget.

    ``samples`` images serve what runs on the classifier's features and the class gradients; ``few_samples`` of them
    serve what runs the whole network again and again. ``levels`` noise levels in each of the two ranges, averaged
    over ``seeds`` directions (the classifier's own curves always take 25 and 5); ``grid`` x ``grid`` landscape
    points; Lanczos ``steps``; Hutchinson ``probes``; ``ascent_steps`` of SAM's sharpness.
    """

    samples: int | None = None
    few_samples: int | None = None
    levels: int | None = None
    seeds: int | None = None
    grid: int | None = None
    steps: int | None = None
    probes: int | None = None
    ascent_steps: int | None = None

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is not None and value < 1:
                raise ValueError(f"--{name} must be at least 1, got {value}.")


@dataclass(frozen=True)
class AnalysisSettings:
    """One analysis. Ranges are ratios ‖ε‖/‖θ‖; ``sharpness_radius`` is SAM's absolute ρ, ``delta`` the bound's.

    ``groups`` names the shot groups to look at beside "all"; None takes those that have samples. ``radius_scope``
    holds the weights of the class gradients, radii and bounds, ``curvature_scope`` those of Hessian and sharpness.
    ``batch_size`` images run together, in each thread.
    """

    parts: tuple[str, ...] = PARTS
    scopes: tuple[str, ...] = SCOPES
    directions: tuple[str, ...] = DIRECTIONS
    groups: tuple[str, ...] | None = None
    noise_range: float = 1.0
    local_range: float = 0.05
    grid_range: float = 1.0
    radius_scope: str = "classifier"
    curvature_scope: str = "all"
    sharpness_radius: float = 0.05
    delta: float = 0.05
    recalibrate_bn: bool = False
    last_stage: str | None = None
    thresholds: ShotThresholds = field(default_factory=ShotThresholds)
    batch_size: int = 125
    seed: int = 0

    def __post_init__(self) -> None:
        for name, allowed in (
            ("parts", PARTS),
            ("scopes", SCOPES),
            ("directions", DIRECTIONS),
            ("groups", SHOT_GROUPS),
        ):
            chosen = getattr(self, name)
            unknown = [choice for choice in chosen or () if choice not in allowed]
            if unknown or (chosen is not None and not chosen):
                raise ValueError(f"--{name} {' '.join(unknown) or '(empty)'}: choose among {', '.join(allowed)}.")
        for name in ("radius_scope", "curvature_scope"):
            if getattr(self, name) not in SCOPES:
                raise ValueError(f"--{name} {getattr(self, name)!r}: choose among {', '.join(SCOPES)}.")
        for name in ("noise_range", "local_range", "grid_range", "sharpness_radius"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"--{name} must be a positive number, got {value}: an empty or negative range.")
        if self.local_range >= self.noise_range:
            raise ValueError(f"--local_range {self.local_range} must lie below --noise_range {self.noise_range}.")
        if self.last_stage is not None and "last_stage" not in self.used_scopes:
            raise ValueError("--last_stage has no effect: no analysed scope is last_stage; leave it out.")

    @property
    def used_scopes(self) -> set[str]:
        """The scopes that the chosen parts look at."""
        scopes = set(self.scopes) if "noise" in self.parts else set()
        if {"radii", "bound"} & set(self.parts):
            scopes.add(self.radius_scope)
        if {"curvature", "sharpness"} & set(self.parts):
            scopes.add(self.curvature_scope)
        return scopes

    @property
    def used_sizes(self) -> tuple[str, ...]:
        """Which of ``samples`` and ``few_samples`` the chosen parts look at; the others' images are not loaded."""
        noise = set(self.scopes) if "noise" in self.parts else set()
        many = "classifier" in noise or {"radii", "bound"} & set(self.parts)
        few = noise - {"classifier"} or {"landscape", "curvature", "sharpness"} & set(self.parts)
        return ("samples",) * bool(many) + ("few_samples",) * bool(few)

    def describe(self) -> dict[str, Any]:
        """Plain values for records."""
        return asdict(self)
