"""Long-tailed losses: per-sample value, class weights, target side; and their reduction to one number."""

from .base import LongTailedLoss, balanced_residual, full_precision, logit_gradient
from .margin import GCL, LDAM, LogitMargin, cloud_sizes, ldam_margins
from .prior import (
    LADE,
    BalancedSoftmax,
    LogitAdjustment,
    VectorScaling,
    lade_regulariser,
    post_hoc_logit_adjustment,
    prior_correction,
)
from .reduction import (
    REDUCTIONS,
    ClassWeighting,
    batch_class_counts,
    class_coefficients,
    deferred,
    effective_number_weights,
    inverse_frequency_weights,
    presence_probability,
    reduce_losses,
)
from .registry import LOSSES, LossEntry, build_loss, list_losses, register_loss
from .softmax import (
    AdjustedCrossEntropy,
    CrossEntropy,
    Focal,
    LabelAwareSmoothing,
    LabelSmoothing,
    focal_loss,
    smoothed_cross_entropy,
    smoothing_factors,
)
from .target import Target

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
    "list_losses",
    "logit_gradient",
    "post_hoc_logit_adjustment",
    "presence_probability",
    "prior_correction",
    "reduce_losses",
    "register_loss",
    "smoothed_cross_entropy",
    "smoothing_factors",
]
