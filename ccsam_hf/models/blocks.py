"""Which block of a network a parameter belongs to."""

from __future__ import annotations

from typing import Any

import torch.nn as nn
from timm.models import group_parameters
from transformers import TimmWrapperForImageClassification


def parameter_blocks(model: nn.Module) -> dict[str, int] | None:
    """The block of each parameter, counted from the input, by the coarse ``group_matcher`` of a timm model.

    None for a model that does not tell its blocks: only timm models do.
    """
    if isinstance(model, TimmWrapperForImageClassification):
        prefix, inner = "timm_model.", model.timm_model
    else:
        prefix, inner = "", model
    timm_model: Any = inner
    try:
        matcher = timm_model.group_matcher(coarse=True)
    except AttributeError:
        return None
    return {f"{prefix}{name}": block for name, block in group_parameters(timm_model, matcher, reverse=True).items()}
