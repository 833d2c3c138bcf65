"""CC-SAM for long-tailed recognition, as a timm and Hugging Face plugin."""

from importlib.metadata import version

from .data import (
    BENCHMARKS,
    Augmentation,
    BenchmarkRecord,
    ClassSampler,
    ImageConfig,
    TensorImages,
    TransformedImages,
    class_counts,
    image_views,
    load_benchmark,
    load_images,
    make_long_tailed,
    register_augmentation,
    register_benchmark,
    splits_of,
)
from .evaluation import (
    Evaluation,
    EvaluationOptions,
    OpenSet,
    OpenSetOptions,
    Predictions,
    compare_predictions,
    evaluate_model,
)
from .experiment import BenchmarkOptions, run_experiment
from .hub import PushError, RunRecord, push_to_hub, render_cards, write_card
from .inference import Classifier, load_classifier, predict_folder
from .losses import (
    LOSSES,
    LongTailedLoss,
    Target,
    build_loss,
    list_losses,
    post_hoc_logit_adjustment,
    register_loss,
)
from .methods import METHODS, Method, find_method
from .metrics import LongTailMetrics, long_tail_accuracy
from .models import (
    FeatureTap,
    add_remote_code,
    create_model,
    find_classifier,
    fold_classifier,
    load_with_head,
    replace_classifier,
)
from .sam import RadiusRule, characteristic_radius
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
    "METHODS",
    "Augmentation",
    "BenchmarkOptions",
    "BenchmarkRecord",
    "CCSAMTrainer",
    "CCSAMTrainingArguments",
    "ClassSampler",
    "Classifier",
    "ClassifierTrainer",
    "ClassifierTrainingArguments",
    "Evaluation",
    "EvaluationOptions",
    "FeatureTap",
    "ImageConfig",
    "LongTailMetrics",
    "LongTailedLoss",
    "Method",
    "OpenSet",
    "OpenSetOptions",
    "Predictions",
    "PushError",
    "RadiusRule",
    "RunRecord",
    "ShotThresholds",
    "Target",
    "TensorImages",
    "TransformedImages",
    "__version__",
    "add_remote_code",
    "adversarial_features",
    "build_loss",
    "characteristic_radius",
    "class_counts",
    "compare_predictions",
    "create_model",
    "evaluate_model",
    "find_classifier",
    "find_method",
    "fold_classifier",
    "image_views",
    "list_losses",
    "load_benchmark",
    "load_classifier",
    "load_images",
    "load_with_head",
    "long_tail_accuracy",
    "make_long_tailed",
    "post_hoc_logit_adjustment",
    "predict_folder",
    "push_to_hub",
    "register_augmentation",
    "register_benchmark",
    "register_loss",
    "render_cards",
    "replace_classifier",
    "run_experiment",
    "splits_of",
    "write_card",
]
