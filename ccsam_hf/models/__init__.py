"""timm models behind transformers' interface, the CIFAR ResNets, and the classifier inside any model."""

from . import cifar_resnet as _registers_the_cifar_resnets  # noqa: F401
from .factory import create_model, make_savable
from .head import ClassifierHead, FeatureTap, find_classifier
from .heads import (
    HEADS,
    AlignedLinear,
    CosineClassifier,
    DeconfoundedClassifier,
    Head,
    ResidualBranches,
    ScaledLinear,
)
from .remote_code import add_remote_code
from .replace import Folded, fold_classifier, installed_head, load_with_head, replace_classifier

__all__ = [
    "HEADS",
    "AlignedLinear",
    "ClassifierHead",
    "CosineClassifier",
    "DeconfoundedClassifier",
    "FeatureTap",
    "Folded",
    "Head",
    "ResidualBranches",
    "ScaledLinear",
    "add_remote_code",
    "create_model",
    "find_classifier",
    "fold_classifier",
    "installed_head",
    "load_with_head",
    "make_savable",
    "replace_classifier",
]
