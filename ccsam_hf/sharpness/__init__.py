"""Sharpness of checkpoints: noise curves, landscapes, characteristic radii, bounds, curvature, and their report."""

from .analysis import Checkpoint, analyse
from .bounds import PrintedBound, certified_bound, needed_ratio, printed_bound
from .budget import AnalysisSettings, Sizes
from .curvature import Curvature, Spectrum, curvature, hutchinson_trace, lanczos, sam_sharpness
from .landscape import filter_normalised, landscape, trajectory_plane
from .measure import CheckpointSharpness, measure_sharpness
from .noise import classifier_noise_losses, noise_losses
from .objective import Objective
from .problem import AnalysedNetwork, class_gradient_norms, untouched
from .radii import few_over_many
from .sharpness_report import Analysis
from .shot_samples import LabelledSplit

__all__ = [
    "AnalysedNetwork",
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
