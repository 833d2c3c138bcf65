"""Class-conditional perturbations: partition of a batch, radius, and the logits or losses that follow."""

from .closed_form import linear_weight_norm, shifted_logits, unit_logit_shift
from .partition import Groups, class_groups
from .radius import RadiusRule, characteristic_radius

__all__ = [
    "Groups",
    "RadiusRule",
    "characteristic_radius",
    "class_groups",
    "linear_weight_norm",
    "shifted_logits",
    "unit_logit_shift",
]
