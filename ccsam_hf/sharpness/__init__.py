"""Sharpness of checkpoints: noise curves, landscapes, characteristic radii, bounds, curvature, and their report."""

from .bounds import PrintedBound, certified_bound, needed_ratio, printed_bound
from .curvature import Curvature, Spectrum, curvature, hutchinson_trace, lanczos
from .guard import untouched
from .inputs import Analysis, Checkpoint, LabelledSplit
from .landscape import filter_normalised, landscape, trajectory_plane
from .measure import CheckpointSharpness, measure_sharpness
from .noise import classifier_noise_losses, noise_losses
from .objective import Objective
from .radii import class_gradient_norms, few_over_many
from .run import analyse
from .settings import AnalysisSettings, Sizes
from .sharpness import sam_sharpness
from .subject import Subject

__all__ = [
    "Analysis",
    "AnalysisSettings",
    "Checkpoint",
    "CheckpointSharpness",
    "Curvature",
    "LabelledSplit",
    "Objective",
    "PrintedBound",
    "Sizes",
    "Spectrum",
    "Subject",
    "analyse",
    "certified_bound",
    "class_gradient_norms",
    "classifier_noise_losses",
    "curvature",
    "few_over_many",
    "filter_normalised",
    "hutchinson_trace",
    "lanczos",
    "landscape",
    "measure_sharpness",
    "needed_ratio",
    "noise_losses",
    "printed_bound",
    "sam_sharpness",
    "trajectory_plane",
    "untouched",
]
