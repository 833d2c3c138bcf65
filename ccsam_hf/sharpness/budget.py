"""From minutes to numbers of samples and grid points."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor, nn

from ccsam_hf.sharpness.settings import AnalysisSettings, Sizes

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
    if {"radii", "bound"} & set(settings.parts) and settings.radius_scope != "classifier":
        passes += full["samples"] * GRADIENT_COST * len({"radii", "bound"} & set(settings.parts))
    if "noise" in settings.parts:
        curves = full["seeds"] * ("random" in settings.directions) + 2 * ("gradient" in settings.directions)
        passes += len(set(settings.scopes) - {"classifier"}) * 2 * full["levels"] * curves * few * value_cost
    if "landscape" in settings.parts:
        passes += planes * full["grid"] ** 2 * few * value_cost
    if settings.curvature_scope != "classifier":
        if "curvature" in settings.parts:
            passes += 2 * few * (full["steps"] + full["probes"]) * HESSIAN_COST
        if "sharpness" in settings.parts:
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
