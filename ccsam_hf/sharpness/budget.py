"""What is measured and how finely: settings, sizes, and the sizes that fit a number of minutes."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..sam.scope import CHOICES, Scope
from ..shots import SHOT_GROUPS, ShotThresholds

MEASURES = ("noise", "landscape", "radii", "bound", "curvature", "sharpness")
DIRECTIONS = ("random", "gradient")
# The classifier, the last stage or block with what follows it, and everything: they contain each other.
DEFAULT_SCOPES = ("classifier", "last:1", "all")


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


def _check_scope(option: str, scope: str) -> None:
    try:
        Scope.parse(scope)
    except ValueError as error:
        raise ValueError(f"--{option} {scope!r}: choose among {CHOICES}.") from error


@dataclass(frozen=True)
class AnalysisSettings:
    """One analysis. Ranges are ratios ‖ε‖/‖θ‖; ``sharpness_radius`` is SAM's absolute ρ, ``delta`` the bound's.

    ``groups`` names the shot groups to look at beside "all"; None takes those that have samples. ``radius_scope``
    holds the weights of the class gradients, radii and bounds, ``curvature_scope`` those of Hessian and sharpness;
    scopes are those of `ccsam_hf.sam.Scope`, as in training.
    ``batch_size`` images run together, in each thread.
    """

    measures: tuple[str, ...] = MEASURES
    scopes: tuple[str, ...] = DEFAULT_SCOPES
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
    thresholds: ShotThresholds = field(default_factory=ShotThresholds)
    batch_size: int = 125
    seed: int = 0

    def __post_init__(self) -> None:
        for name, allowed in (
            ("measures", MEASURES),
            ("directions", DIRECTIONS),
            ("groups", SHOT_GROUPS),
        ):
            chosen = getattr(self, name)
            unknown = [choice for choice in chosen or () if choice not in allowed]
            if unknown or (chosen is not None and not chosen):
                raise ValueError(f"--{name} {' '.join(unknown) or '(empty)'}: choose among {', '.join(allowed)}.")
        if not self.scopes:
            raise ValueError(f"--scopes (empty): name at least one of {CHOICES}.")
        for name, scopes in (
            ("scopes", self.scopes),
            ("radius_scope", (self.radius_scope,)),
            ("curvature_scope", (self.curvature_scope,)),
        ):
            for scope in scopes:
                _check_scope(name, scope)
        for name in ("noise_range", "local_range", "grid_range", "sharpness_radius"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"--{name} must be a positive number, got {value}: an empty or negative range.")
        if self.local_range >= self.noise_range:
            raise ValueError(f"--local_range {self.local_range} must lie below --noise_range {self.noise_range}.")

    @property
    def used_scopes(self) -> set[str]:
        """The scopes that the chosen measures look at."""
        scopes = set(self.scopes) if "noise" in self.measures else set()
        if {"radii", "bound"} & set(self.measures):
            scopes.add(self.radius_scope)
        if {"curvature", "sharpness"} & set(self.measures):
            scopes.add(self.curvature_scope)
        return scopes

    @property
    def used_sizes(self) -> tuple[str, ...]:
        """Which of ``samples`` and ``few_samples`` the chosen measures look at; the others' images are not loaded."""
        noise = set(self.scopes) if "noise" in self.measures else set()
        many = "classifier" in noise or {"radii", "bound"} & set(self.measures)
        few = noise - {"classifier"} or {"landscape", "curvature", "sharpness"} & set(self.measures)
        return ("samples",) * bool(many) + ("few_samples",) * bool(few)

    def describe(self) -> dict[str, Any]:
        """Plain values for records."""
        return asdict(self)


# From a first look to a figure for print; each rung costs about three times the one before.
LADDER = (
    Sizes(samples=500, few_samples=60, levels=4, seeds=1, grid=5, steps=5, probes=2, ascent_steps=2),
    Sizes(samples=1000, few_samples=100, levels=5, seeds=2, grid=7, steps=6, probes=3, ascent_steps=3),
    Sizes(samples=2000, few_samples=150, levels=7, seeds=2, grid=11, steps=8, probes=4, ascent_steps=3),
    Sizes(samples=5000, few_samples=250, levels=9, seeds=3, grid=15, steps=12, probes=6, ascent_steps=5),
    Sizes(samples=10_000, few_samples=500, levels=11, seeds=3, grid=21, steps=20, probes=10, ascent_steps=5),
    Sizes(samples=20_000, few_samples=1000, levels=15, seeds=5, grid=31, steps=30, probes=20, ascent_steps=8),
    Sizes(samples=50_000, few_samples=2000, levels=21, seeds=5, grid=41, steps=40, probes=30, ascent_steps=10),
)
# Costs in forward passes, measured on ResNet-32 on a CPU: forward and backward; a Hessian-vector product.
GRADIENT_COST, HESSIAN_COST = 3.0, 12.0


def required(size: int | None) -> int:
    """A size of a complete plan."""
    if size is None:
        raise ValueError("A size is missing; give all of them or let choose_plan complete them.")
    return size


@dataclass(frozen=True)
class Plan:
    """Complete sizes, the time they are expected to take for each checkpoint, and whether the budget holds them."""

    sizes: Sizes
    seconds: float
    fits: bool = True


def seconds_per_image(model: nn.Module, images: Tensor) -> float:
    """Measured time of a forward pass for each image, after one pass to warm up."""
    with torch.no_grad():
        model(images)
        begin = time.perf_counter()
        model(images)
        if images.is_cuda:
            torch.cuda.synchronize()
    return (time.perf_counter() - begin) / len(images)


def expected_seconds(sizes: Sizes, settings: AnalysisSettings, per_image: float, planes: int = 1) -> float:
    """A cost model in forward passes; the groups' own samples together count as twice ``few_samples``."""
    full = {name: value or 0 for name, value in asdict(sizes).items()}
    few, passes = full["few_samples"], 0.0
    value_cost = 2.0 if settings.recalibrate_bn else 1.0
    if "classifier" in settings.used_scopes:
        passes += full["samples"]
    if {"radii", "bound"} & set(settings.measures) and settings.radius_scope != "classifier":
        passes += full["samples"] * GRADIENT_COST * len({"radii", "bound"} & set(settings.measures))
    if "noise" in settings.measures:
        curves = full["seeds"] * ("random" in settings.directions) + 2 * ("gradient" in settings.directions)
        passes += len(set(settings.scopes) - {"classifier"}) * 2 * full["levels"] * curves * few * value_cost
    if "landscape" in settings.measures:
        passes += planes * full["grid"] ** 2 * few * value_cost
    if settings.curvature_scope != "classifier":
        if "curvature" in settings.measures:
            passes += 2 * few * (full["steps"] + full["probes"]) * HESSIAN_COST
        if "sharpness" in settings.measures:
            passes += 2 * few * full["ascent_steps"] * (1 + GRADIENT_COST)
    return passes * per_image


def choose_plan(
    minutes: float, settings: AnalysisSettings, given: Sizes, per_image: float, checkpoints: int = 1, planes: int = 1
) -> Plan:
    """The finest rung of `LADDER` whose expected time fits ``minutes`` for all checkpoints together.

    Sizes that were given are kept on every rung. When not even the first fits, it is taken and says so.
    """
    if not minutes > 0:
        raise ValueError(f"--budget must be a positive number of minutes, got {minutes}.")
    own = {name: value for name, value in asdict(given).items() if value is not None}
    plans = []
    for rung in LADDER:
        sizes = replace(rung, **own)
        plans.append(Plan(sizes, expected_seconds(sizes, settings, per_image, planes)))
    fitting = [plan for plan in plans if plan.seconds * checkpoints <= 60 * minutes]
    return fitting[-1] if fitting else replace(plans[0], fits=False)
