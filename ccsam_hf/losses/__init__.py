"""Long-tailed losses: per-sample value, class weights, target side; and their reduction to one number."""

from ccsam_hf.losses.base import LongTailedLoss, full_precision
from ccsam_hf.losses.class_weights import (
    ClassWeighting,
    deferred,
    effective_number_weights,
    inverse_frequency_weights,
)
from ccsam_hf.losses.cosine import GCL, LDAM, cloud_sizes, ldam_margins
from ccsam_hf.losses.cross_entropy import AdjustedCrossEntropy, CrossEntropy
from ccsam_hf.losses.focal import Focal, focal_loss
from ccsam_hf.losses.gradient import balanced_residual, logit_gradient
from ccsam_hf.losses.lade import LADE, lade_regulariser
from ccsam_hf.losses.prior import (
    BalancedSoftmax,
    LogitAdjustment,
    LogitMargin,
    VectorScaling,
    post_hoc_logit_adjustment,
)
from ccsam_hf.losses.reduce import (
    REDUCTIONS,
    batch_class_counts,
    class_coefficients,
    presence_probability,
    reduce_losses,
)
from ccsam_hf.losses.registry import LOSSES, LossEntry, build_loss
from ccsam_hf.losses.smoothing import LabelAwareSmoothing, LabelSmoothing, smoothed_cross_entropy, smoothing_factors
from ccsam_hf.losses.target import Target

__all__ = [
    "GCL",
    "LADE",
    "LDAM",
    "LOSSES",
    "REDUCTIONS",
    "AdjustedCrossEntropy",
    "BalancedSoftmax",
    "ClassWeighting",
    "CrossEntropy",
    "Focal",
    "LabelAwareSmoothing",
    "LabelSmoothing",
    "LogitAdjustment",
    "LogitMargin",
    "LongTailedLoss",
    "LossEntry",
    "Target",
    "VectorScaling",
    "balanced_residual",
    "batch_class_counts",
    "build_loss",
    "class_coefficients",
    "cloud_sizes",
    "deferred",
    "effective_number_weights",
    "focal_loss",
    "full_precision",
    "inverse_frequency_weights",
    "lade_regulariser",
    "ldam_margins",
    "logit_gradient",
    "post_hoc_logit_adjustment",
    "presence_probability",
    "reduce_losses",
    "smoothed_cross_entropy",
    "smoothing_factors",
]
