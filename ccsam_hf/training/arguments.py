"""Arguments of the two trainers: everything `transformers.TrainingArguments` has, and the choices of CC-SAM."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from typing import Any

from transformers import TrainingArguments

from ..shots import ShotThresholds

# What a network may be trained with from the start; other kinds calibrate a trained one (stage 2).
CLASSIFIERS = ("linear", "cosine", "tde", "reslt")


@dataclass
class LongTailedTrainingArguments(TrainingArguments):
    """What both stages share. Two inherited defaults differ: ``remove_unused_columns`` is False (transforms read the
    image column) and ``hub_private_repo`` is True."""

    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Drop dataset columns the model does not name; breaks image transforms."}
    )
    hub_private_repo: bool | None = field(
        default=True, metadata={"help": "Create the Hub repository as a private one unless told otherwise."}
    )
    loss: str = field(
        default="cross_entropy", metadata={"help": "Name of the base loss, a key of ccsam_hf.losses.LOSSES."}
    )
    loss_args: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Options of the base loss, as JSON on the command line."}
    )
    label_column: str = field(default="label", metadata={"help": "Column of the training set that holds the labels."})
    many_shot: int = field(default=100, metadata={"help": "Classes with more training images are many-shot."})
    few_shot: int = field(default=20, metadata={"help": "Classes with fewer training images are few-shot."})
    shot_boundaries: str = field(
        default="strict", metadata={"help": "strict (> many, < few) or inclusive (>= many, <= few, as OLTR)."}
    )
    lr_milestones: list[float] | None = field(
        default=None, metadata={"help": "Epochs at which the learning rate is multiplied by lr_decay, after warm-up."}
    )
    lr_decay: float = field(default=0.1, metadata={"help": "Factor of the learning rate at each of lr_milestones."})
    decay_all_parameters: bool = field(
        default=False, metadata={"help": "Weight decay on biases and normalisation layers too, as the papers do."}
    )

    averaging_start: float | None = field(
        default=None,
        metadata={"help": "Epoch from which the weights after each epoch are averaged; the final model is their mean."},
    )
    spectral_norm: bool = field(
        default=False,
        metadata={
            "help": "Divide weights by their largest singular value: in stage 1 those of every convolution and linear "
            "layer but the classifier, in stage 2 the classifier's."
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.loss_args, str):
            self.loss_args = json.loads(self.loss_args)
        self._check_averaging()
        self.shots()
        if self.lr_milestones is None and self.lr_decay != 0.1:
            raise ValueError("lr_decay has no effect without lr_milestones; set both or neither.")
        if self.lr_milestones is not None and self.lr_scheduler_type != "linear":
            raise ValueError("lr_milestones replaces the scheduler: leave lr_scheduler_type at its default with it.")

    def _check_averaging(self) -> None:
        if self.averaging_start is None:
            return
        if self.spectral_norm:
            raise ValueError(
                "averaging_start would average weights apart from their singular values: drop spectral_norm."
            )
        if self.load_best_model_at_end:
            raise ValueError("averaging_start makes the final model the mean: leave load_best_model_at_end out.")
        if self.max_steps > 0:
            raise ValueError("averaging_start counts epochs: give num_train_epochs instead of max_steps.")
        if not 0 <= self.averaging_start < self.num_train_epochs:
            raise ValueError(
                f"averaging_start must lie in 0..{self.num_train_epochs:g} epochs (end excluded), got "
                f"{self.averaging_start:g}."
            )

    def shots(self) -> ShotThresholds:
        """The many/medium/few thresholds these arguments name."""
        return ShotThresholds(self.many_shot, self.few_shot, self.shot_boundaries)  # type: ignore[arg-type]


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
        if isinstance(self.classifier_args, str):
            self.classifier_args = json.loads(self.classifier_args)
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
        if self.mixup_alpha < 0:
            raise ValueError(f"mixup_alpha must be at least 0, got {self.mixup_alpha}.")

    def classifier_options(self) -> dict[str, Any]:
        """``classifier_args`` as a mapping."""
        assert not isinstance(self.classifier_args, str)
        return dict(self.classifier_args or {})


@dataclass
class ClassifierTrainingArguments(LongTailedTrainingArguments):
    """Stage 2: how the classifier is retrained on top of the frozen backbone."""

    rule: str = field(
        default="adversarial",
        metadata={
            "help": "adversarial (CC-SAM's stage 2), adversarial_released (as its authors released it), crt, crt_flat, "
            "lws, mislas, disalign; without training tau_norm, ncm."
        },
    )
    sampling: str | None = field(
        default=None,
        metadata={
            "help": "Order of the samples, a key of ccsam_hf.data.SAMPLING_SCHEMES; none for the rule's own: instance "
            "for disalign, class for all others."
        },
    )
    sampling_beta: float | None = field(
        default=None, metadata={"help": "Beta of sampling='effective_number'; none for 0.9999."}
    )
    shift_batch_norm: bool = field(
        default=False, metadata={"help": "Let the frozen backbone's BatchNorm statistics follow the batches (MiSLAS)."}
    )
    tau: float = field(default=1.0, metadata={"help": "Exponent of tau_norm: 0 for none, 1 for unit weights."})
    keep_bias: bool = field(default=False, metadata={"help": "Keep the classifier's bias in tau_norm."})
    ncm_metric: str = field(default="euclidean", metadata={"help": "Distance of ncm: euclidean or cosine."})
    reweighting_exponent: float = field(
        default=1.2, metadata={"help": "Exponent of disalign's class weights, proportional to n_c to its negative."}
    )
    adversarial_scale: float | None = field(
        default=None,
        metadata={"help": "λ of Eq. 12: length of the features' perturbation, in feature units; 1 as released."},
    )
    relative_adversarial_scale: float | None = field(
        default=None,
        metadata={"help": "λ as a share of the batch's mean ‖z‖; 0.1 when neither it nor adversarial_scale is given."},
    )
    adversarial_schedule: str = field(
        default="progressive",
        metadata={"help": "progressive: weight t/T with t = 0..T-1 (Eq. 14); progressive_from_one: t = 1..T."},
    )
    adversarial_cap: float = field(
        default=0.3, metadata={"help": "Largest weight of the adversarial loss in adversarial_released."}
    )
    head_radius: float = field(
        default=0.05, metadata={"help": "Length ρ of crt_flat's perturbation of the classifier, in weight units."}
    )
    head_flat_weight: float = field(
        default=1.0, metadata={"help": "a in crt_flat's (1 - a) · loss + a · perturbed loss."}
    )
    head_direction: str = field(
        default="gradient", metadata={"help": "Of crt_flat's perturbation: gradient, or random (Gaussian)."}
    )
    reinitialize_classifier: bool = field(
        default=False, metadata={"help": "Start from a fresh classifier instead of the one of stage 1."}
    )
    cache_features: bool = field(
        default=False, metadata={"help": "Compute the features once and train the classifier on them."}
    )
    cached_views: int = field(
        default=1, metadata={"help": "Augmented views of each image in the cache; needs cache_features."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cached_views < 1:
            raise ValueError(f"cached_views must be at least 1, got {self.cached_views}.")
        if self.cached_views > 1 and not self.cache_features:
            raise ValueError("cached_views has no effect without cache_features; set cache_features as well.")
        if self.shift_batch_norm and self.cache_features:
            raise ValueError("shift_batch_norm changes the features that cache_features keeps: set one of the two.")


def default_options(args: TrainingArguments, names: list[str]) -> dict[str, Any]:
    """The default values of the named options."""
    return {f.name: f.default for f in fields(args) if f.name in names}


def refuse_without_effect(args: TrainingArguments, names: list[str], because: str) -> None:
    """Raise if any of the named options was changed although the chosen combination does not use it."""
    changed = {
        name: getattr(args, name)
        for name, value in default_options(args, names).items()
        if getattr(args, name) != value
    }
    if changed:
        settings = ", ".join(f"{name}={value!r}" for name, value in changed.items())
        raise ValueError(f"{settings}: no effect {because}; leave it out or change the combination.")
