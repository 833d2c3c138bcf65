"""CC-SAM for long-tailed recognition, as a timm and Hugging Face plugin."""

from importlib.metadata import version

from .data import BENCHMARKS, ClassSampler, class_counts, load_benchmark, make_long_tailed
from .evaluation import Evaluation, EvaluationOptions, evaluate_model
from .experiment import BenchmarkOptions, run_experiment
from .inference import Classifier, load_classifier
from .losses import LOSSES, Target, build_loss, post_hoc_logit_adjustment
from .metrics import LongTailMetrics, long_tail_accuracy
from .models import FeatureTap, add_remote_code, create_model, find_classifier
from .perturbation import RadiusRule, characteristic_radius
from .shots import ShotThresholds
from .training import (
    CCSAMTrainer,
    CCSAMTrainingArguments,
    ClassifierTrainer,
    ClassifierTrainingArguments,
    adversarial_features,
)

__version__ = version("ccsam_hf")

__all__ = [
    "BENCHMARKS",
    "LOSSES",
    "BenchmarkOptions",
    "CCSAMTrainer",
    "CCSAMTrainingArguments",
    "Classifier",
    "ClassifierTrainer",
    "ClassifierTrainingArguments",
    "ClassSampler",
    "Evaluation",
    "EvaluationOptions",
    "FeatureTap",
    "LongTailMetrics",
    "RadiusRule",
    "ShotThresholds",
    "Target",
    "__version__",
    "add_remote_code",
    "adversarial_features",
    "build_loss",
    "characteristic_radius",
    "class_counts",
    "create_model",
    "evaluate_model",
    "find_classifier",
    "load_benchmark",
    "load_classifier",
    "long_tail_accuracy",
    "make_long_tailed",
    "post_hoc_logit_adjustment",
    "run_experiment",
]
