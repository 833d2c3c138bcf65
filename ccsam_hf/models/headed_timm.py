"""timm models whose classifier is one of `heads`, for transformers' automatic classes.

A published checkpoint can ship this file, with `heads.py` and `cifar_resnet.py`, as its remote code.
"""

from typing import Any

from transformers import TimmWrapperConfig, TimmWrapperForImageClassification

from .cifar_resnet import CifarResNet  # noqa: F401  registers the CIFAR architectures
from .heads import install_head

SUFFIX = "_with_head"


class HeadedTimmConfig(TimmWrapperConfig):
    """timm's configuration, and the classifier in `classifier_head`: its kind, the module's name and its options.

    The name of its own keeps a library that does not know the classifier from loading half of the weights.
    """

    model_type = "timm_wrapper" + SUFFIX
    classifier_head: dict[str, Any] | None = None
    image_processor_type: str = "TimmWrapperImageProcessor"


class HeadedTimmForImageClassification(TimmWrapperForImageClassification):
    """transformers' timm wrapper with the classifier that the configuration names."""

    config_class = HeadedTimmConfig

    def __init__(self, config: HeadedTimmConfig) -> None:
        super().__init__(config)
        install_head(self, **(config.classifier_head or {}))
