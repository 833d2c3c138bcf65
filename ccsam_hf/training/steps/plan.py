"""Which perturbation a run uses: named combinations of partition, radius, direction and scope, and their options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from ...sam import Partition, RadiusRule, RadiusSchedule, Scope
from ..arguments import CCSAMTrainingArguments, refuse_without_effect

SCALES = ("radius", "radius_scale", "relative_radius")
# Every option of the family; a preset gives the values of those that the user leaves unset.
PERTURBATION_OPTIONS = [
    "partition",
    "partition_groups",
    "head_threshold",
    "tail_weight",
    *SCALES,
    "gradient_exponent",
    "count_exponent",
    "radius_momentum",
    "max_perturbation_ratio",
    "gradient_norm",
    "direction",
    "perturbation_length",
    "adaptive",
    "layerwise",
    "perturbed_layers",
    "perturbed_statistics",
    "max_copies",
    "perturbation_sync",
    "radius_schedule",
    "radius_start",
    "radius_ramp",
    "radius_ramp_steps",
    "focal_gamma",
    "sharpness_weight",
    "flat_weight",
    "feature_gradient",
]
_CCSAM: dict[str, Any] = {
    "partition": "class",
    # In four epochs of CIFAR-100-LT a mean of 0.01 held a ResNet-32 back (3.5 % against 9.7 % without): start low.
    "relative_radius": 0.002,
    "gradient_exponent": 0.5,
    "count_exponent": 0.25,
    "perturbed_layers": "classifier",
    "perturbed_statistics": "clean",
}
_SAM: dict[str, Any] = {
    "partition": "batch",
    "radius": 0.05,
    "gradient_exponent": 0.0,
    "count_exponent": 0.0,
    "perturbed_layers": "all",
    "perturbed_statistics": "batch",
}
_CONSTANT = {"gradient_exponent": 0.0, "count_exponent": 0.0}
PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "none": {},
        "ccsam": _CCSAM,
        # The ablation of the paper's Table 2, and the controls of the class-conditional radius.
        "ccsam_direction": {**_CCSAM, "perturbation_length": "mean"},
        "ccsam_magnitude": {**_CCSAM, "direction": "random"},
        "ccsam_count": {**_CCSAM, "gradient_exponent": 0.0},
        "ccsam_constant": {**_CCSAM, **_CONSTANT},
        "random_groups": {**_CCSAM, **_CONSTANT, "partition": "random"},
        # Foret et al., ICLR 2021; Zhou et al., ICCV 2023; Li et al., ICML 2025 (γ and λ are tuned there: ours are 1).
        "sam": _SAM,
        "imbsam": {**_SAM, "partition": "head_tail", "head_threshold": 100},
        "focal_sam": {**_SAM, "focal_gamma": 1.0, "sharpness_weight": 1.0},
        # Zhao et al., ICML 2022: ∇L + λ ∇‖∇L‖ to first order is (1 − α) ∇L(w) + α ∇L(w + r ∇L/‖∇L‖), λ = α r, which is
        # the SAM step with radius r and flat_weight α. Random model perturbation: the same with a Gaussian direction.
        "gradient_norm_penalty": {**_SAM, "flat_weight": 0.8},
        "random_model": {**_SAM, "direction": "random"},
    }
)


@dataclass(frozen=True)
class FocalChoice:
    """γ and λ of Focal-SAM."""

    gamma: float
    sharpness_weight: float

    def __post_init__(self) -> None:
        for option, value in (("focal_gamma", self.gamma), ("sharpness_weight", self.sharpness_weight)):
            if not 0 <= value < float("inf"):
                raise ValueError(f"{option} must be a finite number of at least 0, got {value}.")


@dataclass(frozen=True)
class PerturbationPlan:
    """The perturbation of one run, resolved from preset and options."""

    partition: Partition
    rule: RadiusRule
    scope: Scope
    schedule: RadiusSchedule
    statistics: Literal["batch", "clean"]
    gradient_norm: Literal["batch", "unbiased"]
    direction: Literal["gradient", "random"]
    length: Literal["rule", "unit", "mean"]
    feature_gradient: Literal["perturbed", "clean"]
    flat_weight: float
    adaptive: bool
    layerwise: bool
    sync: bool
    max_copies: int | None
    focal: FocalChoice | None

    @property
    def closed_form(self) -> bool:
        """The classifier's perturbation needs no second pass, unless each tensor or weight has a scale of its own."""
        return self.scope.kind == "classifier" and not (self.adaptive or self.layerwise or self.focal)

    @property
    def shares_mean(self) -> bool:
        return self.rule.relative_radius is not None


def resolve_plan(args: CCSAMTrainingArguments) -> PerturbationPlan | None:
    """The plan the arguments name; None for plain training (none, radius 0 or flat_weight 0).

    ValueError: an unknown name (lists the choices), a value out of range, or an option without effect.
    """
    if args.perturbation not in PRESETS:
        raise ValueError(f"perturbation={args.perturbation!r} is not known; choose one of {', '.join(PRESETS)}.")
    if args.perturbation == "none":
        refuse_without_effect(args, PERTURBATION_OPTIONS, "with perturbation='none'")
        return None
    chosen = _chosen(args)
    plan = _plan(chosen)
    _refuse_idle(args, plan)
    return None if plan.rule.is_zero or plan.flat_weight == 0 else plan


def _chosen(args: CCSAMTrainingArguments) -> dict[str, Any]:
    """Every option's value: the user's, else the preset's. A scale of the user's replaces that of the preset."""
    preset = dict(PRESETS[args.perturbation])
    given = {name: getattr(args, name) for name in PERTURBATION_OPTIONS}
    scales = [name for name in SCALES if given[name] is not None]
    if scales:
        preset = {name: value for name, value in preset.items() if name not in SCALES}
    if given["partition"] is not None and given["partition"] != preset.get("partition"):
        preset.pop("head_threshold", None)
    return {name: preset.get(name) if value is None else value for name, value in given.items()} | {
        # Options with a default of their own, which a preset overrides while the user leaves them alone.
        name: preset[name]
        for name, default in (("direction", "gradient"), ("perturbation_length", "rule"), ("flat_weight", 1.0))
        if name in preset and given[name] == default
    }


def _plan(chosen: Mapping[str, Any]) -> PerturbationPlan:
    for name, choices in CHOICES.items():
        if chosen[name] not in choices:
            raise ValueError(f"{name}={chosen[name]!r} is not known; choose {' or '.join(choices)}.")
    if chosen["max_copies"] is not None and chosen["max_copies"] < 1:
        raise ValueError(f"max_copies must be at least 1, got {chosen['max_copies']}; leave it out for no bound.")
    focal = None
    if chosen["focal_gamma"] is not None or chosen["sharpness_weight"] is not None:
        weight = chosen["sharpness_weight"]
        focal = FocalChoice(chosen["focal_gamma"] or 0.0, 1.0 if weight is None else weight)
    return PerturbationPlan(
        partition=Partition(
            chosen["partition"], chosen["partition_groups"], chosen["head_threshold"], chosen["tail_weight"]
        ),
        rule=RadiusRule(
            **{name: chosen[name] for name in SCALES},
            gradient_exponent=chosen["gradient_exponent"],
            count_exponent=chosen["count_exponent"],
            max_perturbation_ratio=chosen["max_perturbation_ratio"],
        ),
        scope=Scope.parse(chosen["perturbed_layers"]),
        schedule=RadiusSchedule(
            chosen["radius_schedule"], chosen["radius_start"], chosen["radius_ramp"], chosen["radius_ramp_steps"]
        ),
        statistics=chosen["perturbed_statistics"],
        gradient_norm=chosen["gradient_norm"],
        direction=chosen["direction"],
        length=chosen["perturbation_length"],
        feature_gradient=chosen["feature_gradient"],
        flat_weight=chosen["flat_weight"],
        adaptive=chosen["adaptive"],
        layerwise=chosen["layerwise"],
        sync=chosen["perturbation_sync"],
        max_copies=chosen["max_copies"],
        focal=focal,
    )


CHOICES = {
    "perturbed_statistics": ("batch", "clean"),
    "gradient_norm": ("batch", "unbiased"),
    "direction": ("gradient", "random"),
    "perturbation_length": ("rule", "unit", "mean"),
    "feature_gradient": ("perturbed", "clean"),
}


def _refuse_idle(args: CCSAMTrainingArguments, plan: PerturbationPlan) -> None:
    """Options that the combination does not use, and combinations that do not exist."""
    if not plan.shares_mean:
        refuse_without_effect(args, ["radius_momentum"], "without relative_radius")
    if plan.closed_form:
        refuse_without_effect(args, ["perturbed_statistics", "max_copies"], "with perturbed_layers='classifier'")
    else:
        refuse_without_effect(args, ["feature_gradient"], "unless perturbed_layers='classifier'")
        if plan.gradient_norm == "unbiased":
            raise ValueError("gradient_norm='unbiased' needs perturbed_layers='classifier', where it is exact.")
    if plan.rule.gradient_exponent == 0:
        refuse_without_effect(args, ["gradient_norm"], "on a radius with gradient_exponent=0")
    if plan.partition.tail_weight != 1 and (plan.closed_form or plan.statistics != "batch"):
        raise ValueError(
            f"tail_weight={plan.partition.tail_weight:g} needs perturbed_statistics='batch' and perturbed layers "
            "beyond the classifier, as perturbation='imbsam' has them."
        )
    if plan.statistics == "batch":
        refuse_without_effect(args, ["max_copies"], "with perturbed_statistics='batch'")
    elif plan.sync and not plan.closed_form:
        raise ValueError("perturbation_sync needs perturbed_statistics='batch', or perturbed_layers='classifier'.")
    if plan.length == "unit" and plan.rule.max_perturbation_ratio is not None:
        refuse_without_effect(args, ["max_perturbation_ratio"], "with perturbation_length='unit'")
    if plan.direction == "random" and (plan.adaptive or plan.layerwise):
        raise ValueError("direction='random' has no adaptive or layerwise form; leave these off.")
    if plan.direction == "random" and plan.sync:
        raise ValueError("direction='random' is drawn by each process for itself: leave perturbation_sync off.")
    if plan.layerwise and plan.shares_mean and plan.rule.gradient_exponent != 0:
        raise ValueError(
            "layerwise with relative_radius needs gradient_exponent=0: the running mean is that of all layers' norm, "
            "beside which a layer's own gradient looks small and its radius comes out too large."
        )
    if plan.adaptive and (plan.rule.radius is None or plan.layerwise):
        raise ValueError("adaptive (ASAM) needs a constant radius, and excludes layerwise.")
    if plan.layerwise and plan.length != "rule":
        raise ValueError("layerwise gives every tensor the rule's length; leave perturbation_length at 'rule'.")
    if plan.focal is not None:
        if plan.partition.kind != "batch" or plan.statistics != "batch":
            raise ValueError(
                "Focal-SAM perturbs the batch as a whole: partition='batch' with perturbed_statistics='batch'."
            )
        refuse_without_effect(args, ["flat_weight", "perturbation_sync"], "with perturbation='focal_sam'")
