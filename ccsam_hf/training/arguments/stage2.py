"""Arguments of stage 2: the retraining of the classifier."""

from __future__ import annotations

from dataclasses import dataclass, field

from .shared import LongTailedTrainingArguments


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
