"""timm models whose classifier is one of `heads`, for transformers' automatic classes.

A published checkpoint can ship this file, with `heads.py` and `cifar_resnet.py`, as its remote code.
"""

from typing import Any

import torch.nn as nn
from transformers import TimmWrapperConfig, TimmWrapperForImageClassification

from .cifar_resnet import CifarResNet  # noqa: F401  registers the CIFAR architectures
from .heads import HEADS, Head

SUFFIX = "_with_head"


def install_head(model: nn.Module, name: str, kind: str, options: dict[str, Any]) -> Head:
    """Put the head of a kind where the `nn.Linear` called `name` is, starting from that layer's weights."""
    if kind not in HEADS:
        raise ValueError(f"Unknown kind of classifier {kind!r}: choose one of {', '.join(HEADS)}.")
    linear = model.get_submodule(name)
    assert isinstance(linear, nn.Linear), f"{name} is a {type(linear).__name__}"
    head = HEADS[kind].from_linear(linear, **options)
    model.set_submodule(name, head)
    return head


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
