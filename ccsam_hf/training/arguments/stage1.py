"""Arguments of stage 1: the perturbation of the weights."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from .shared import LongTailedTrainingArguments, read_mapping

# What a network may be trained with from the start; other kinds calibrate a trained one (stage 2).
CLASSIFIERS = ("linear", "cosine", "tde", "reslt")


@dataclass
class CCSAMTrainingArguments(LongTailedTrainingArguments):
    """Stage 1: how the weights are perturbed and how the perturbed loss enters the step."""

    perturbation: str = field(
        default="ccsam", metadata={"help": "Named perturbation (ccsam, sam, imbsam, ...), or none for the plain loss."}
    )
    partition: str | None = field(
        default=None, metadata={"help": "Who shares a perturbation: batch, class, head_tail, quantiles or random."}
    )
    partition_groups: int = field(default=0, metadata={"help": "Number of groups of partition=quantiles."})
    head_threshold: int | None = field(
        default=None, metadata={"help": "Classes with more training images are the head of partition=head_tail."}
    )
    tail_weight: float = field(
        default=1.0, metadata={"help": "Multiplies the tail's loss of partition=head_tail; 2 in ImbSAM as released."}
    )
    radius: float | None = field(default=None, metadata={"help": "Constant radius ρ of SAM, in units of the weights."})
    radius_scale: float | None = field(
        default=None, metadata={"help": "Multiplies the perturbation as printed (Eq. 9); excludes relative_radius."}
    )
    relative_radius: float | None = field(
        default=None, metadata={"help": "Mean of ‖ε‖/‖w‖ over samples; ccsam's default is 0.002."}
    )
    gradient_exponent: float | None = field(
        default=None, metadata={"help": "a in ‖ε_c‖ ∝ ‖g_c‖^-a (n_c - 1)^-b; ccsam: 0.5."}
    )
    count_exponent: float | None = field(default=None, metadata={"help": "b of the same; ccsam: 0.25."})
    radius_momentum: float = field(
        default=0.99, metadata={"help": "Momentum of the running mean that relative_radius is relative to."}
    )
    max_perturbation_ratio: float | None = field(
        default=0.1, metadata={"help": "Upper bound of ‖ε_c‖/‖w‖ for every group; 0 or less for none, as printed."}
    )
    gradient_norm: str = field(
        default="batch", metadata={"help": "‖g_c‖ of the batch, or unbiased: off-diagonal mean, smoothed over batches."}
    )
    direction: str = field(default="gradient", metadata={"help": "gradient, or random (Gaussian of equal length)."})
    perturbation_length: str = field(
        default="rule", metadata={"help": "rule, unit (1 for every group) or mean (the rule's mean for every group)."}
    )
    adaptive: bool = field(default=False, metadata={"help": "Scale the perturbation by |w| (ASAM); needs radius."})
    layerwise: bool = field(default=False, metadata={"help": "Apply the radius rule to every tensor by itself."})
    perturbed_layers: str | None = field(
        default=None,
        metadata={"help": "classifier (no second pass), last:N, all, norm_affine, no_norm or names:PATTERN,..."},
    )
    perturbed_statistics: str | None = field(
        default=None,
        metadata={"help": "BatchNorm in perturbed passes: clean (two passes for any number of groups) or batch."},
    )
    max_copies: int | None = field(
        default=None, metadata={"help": "Bound on the copies of a layer in memory, with perturbed_statistics=clean."}
    )
    perturbation_sync: bool = field(
        default=False, metadata={"help": "Class gradients of all processes' batches together instead of each its own."}
    )
    radius_schedule: str = field(default="constant", metadata={"help": "constant, linear or step."})
    radius_start: float = field(default=0.0, metadata={"help": "Epoch before which nothing is perturbed."})
    radius_ramp: float = field(default=0.0, metadata={"help": "Epochs over which linear and step grow to the radius."})
    radius_ramp_steps: int = field(default=0, metadata={"help": "Number of jumps of radius_schedule=step."})
    focal_gamma: float | None = field(default=None, metadata={"help": "γ of Focal-SAM's class weights (1 - π_c)^γ."})
    sharpness_weight: float | None = field(default=None, metadata={"help": "λ of Focal-SAM's sharpness."})
    flat_weight: float = field(
        default=1.0, metadata={"help": "a in (1 - a) · loss + a · perturbed loss; 0 trains the plain loss."}
    )
    feature_gradient: str = field(
        default="perturbed",
        metadata={"help": "perturbed (Eq. 11): the backbone sees W + ε_c; clean: it sees W, the head W + ε_c."},
    )
    class_reduction: str = field(
        default="sample",
        metadata={"help": "sample: mean over samples; class: over the classes present; class_unbiased: Eq. 11."},
    )
    mixup_alpha: float = field(default=0.0, metadata={"help": "Beta(alpha, alpha) mixing of images; 0 for none."})
    classifier: str = field(
        default="linear",
        metadata={"help": "Classifier that the network is trained with: linear, cosine, tde or reslt."},
    )
    classifier_args: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Options of that classifier, as JSON on the command line."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.classifier_args = read_mapping("classifier_args", self.classifier_args)
        if self.classifier not in CLASSIFIERS:
            raise ValueError(f"classifier={self.classifier!r} is not known; choose one of {', '.join(CLASSIFIERS)}.")
        if self.classifier == "linear" and self.classifier_args:
            raise ValueError("classifier_args: a linear classifier has no options; leave them out.")
        if self.max_perturbation_ratio is not None and self.max_perturbation_ratio <= 0:
            self.max_perturbation_ratio = None
        if not 0 <= self.flat_weight <= 1:
            raise ValueError(f"flat_weight must lie in 0..1, got {self.flat_weight}.")
        if not 0 <= self.radius_momentum < 1:
            raise ValueError(f"radius_momentum must lie in 0..1 (1 excluded), got {self.radius_momentum}.")
        if not 0 <= self.mixup_alpha < math.inf:
            raise ValueError(f"mixup_alpha must be at least 0 and finite, got {self.mixup_alpha}.")

    def classifier_options(self) -> dict[str, Any]:
        """``classifier_args`` as a mapping."""
        assert not isinstance(self.classifier_args, str)
        return dict(self.classifier_args or {})
