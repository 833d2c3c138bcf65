"""Long-tailed losses: per-sample value, class weights, target side; and their reduction to one number."""

from ccsam_hf.losses.base import LongTailedLoss
from ccsam_hf.losses.class_weights import ClassWeighting
from ccsam_hf.losses.cross_entropy import AdjustedCrossEntropy, CrossEntropy
from ccsam_hf.losses.gradient import balanced_residual, logit_gradient
from ccsam_hf.losses.reduce import REDUCTIONS, batch_class_counts, class_coefficients, reduce_losses
from ccsam_hf.losses.target import Target

__all__ = [
    "REDUCTIONS",
    "AdjustedCrossEntropy",
    "ClassWeighting",
    "CrossEntropy",
    "LongTailedLoss",
    "Target",
    "balanced_residual",
    "batch_class_counts",
    "class_coefficients",
    "logit_gradient",
    "reduce_losses",
]
