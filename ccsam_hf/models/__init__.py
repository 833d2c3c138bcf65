"""timm models behind transformers' interface, the CIFAR ResNets, and the classifier inside any model."""

from . import cifar_resnet as _registers_the_cifar_resnets  # noqa: F401
from .factory import create_model
from .head import ClassifierHead, FeatureTap, find_classifier
from .remote_code import add_remote_code

__all__ = ["ClassifierHead", "FeatureTap", "add_remote_code", "create_model", "find_classifier"]
