"""Perturbed weights for groups of samples: partition, radius, direction, scope, and the passes that follow."""

from .class_copies import ClassCopies, refuse_joined_statistics
from .closed_form import JoinedBatch, linear_weight_norm, shifted_logits, unit_logit_shift
from .cosine import CosineShift, unit_cosine_shift
from .directions import (
    adaptive_metric,
    adaptive_norms,
    adaptive_step,
    gaussian_logit_shift,
    gaussian_step,
    gradient_step,
    layerwise_step,
    mean_lengths,
    unit_lengths,
)
from .focal import focal_class_weights, focal_weights
from .general_step import batch_gradients, clean_weights, perturbed_passes
from .gradient_norm import NormState, linear_sample_squares, unbiased_norms
from .group_gradients import GroupGradients
from .layout import GroupLayout
from .partition import PARTITIONS, Groups, Partition, class_groups
from .radius import RadiusRule, characteristic_radius
from .schedule import RadiusSchedule
from .scope import Scope, blocks_of_modules
from .state import RandomState

__all__ = [
    "PARTITIONS",
    "ClassCopies",
    "CosineShift",
    "GroupGradients",
    "GroupLayout",
    "Groups",
    "JoinedBatch",
    "NormState",
    "Partition",
    "RadiusRule",
    "RadiusSchedule",
    "RandomState",
    "Scope",
    "adaptive_metric",
    "adaptive_norms",
    "adaptive_step",
    "batch_gradients",
    "blocks_of_modules",
    "characteristic_radius",
    "class_groups",
    "clean_weights",
    "focal_class_weights",
    "focal_weights",
    "gaussian_logit_shift",
    "gaussian_step",
    "gradient_step",
    "layerwise_step",
    "linear_sample_squares",
    "linear_weight_norm",
    "mean_lengths",
    "perturbed_passes",
    "refuse_joined_statistics",
    "shifted_logits",
    "unbiased_norms",
    "unit_cosine_shift",
    "unit_lengths",
    "unit_logit_shift",
]
