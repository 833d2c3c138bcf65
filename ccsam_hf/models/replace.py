"""Replace a model's linear classifier by another kind, fold it back into a linear layer, and load such a model."""

from __future__ import annotations

import json
import os
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
import transformers
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForImageClassification,
    PreTrainedConfig,
    PreTrainedModel,
    TimmWrapperConfig,
)

from .headed_timm import SUFFIX, HeadedTimmConfig, HeadedTimmForImageClassification, install_head
from .heads import Head, Preserved

AutoConfig.register(HeadedTimmConfig.model_type, HeadedTimmConfig)
AutoModelForImageClassification.register(HeadedTimmConfig, HeadedTimmForImageClassification)


@dataclass(frozen=True)
class Folded:
    """What `fold_classifier` did: the name and kind of the head that became an `nn.Linear`, and what stayed equal.

    preserved: "logits" (and so everything), or "predictions": the order of the logits of every image is the same,
        but its logits are multiplied by the length ‖z‖ of its features, so that probabilities differ.
    """

    name: str
    kind: str
    preserved: Preserved


def replace_classifier(model: PreTrainedModel, kind: str, name: str | None = None, **options: Any) -> Head:
    """Put another kind of classifier, a key of `HEADS`, where the model's linear one is; it starts from its weights.

    The model is changed in place, and its configuration says so: `save_pretrained` writes a folder that
    `load_with_head` loads (and, for timm models, `AutoModelForImageClassification`), while a library that does not
    know the classifier refuses it.

    name: of the `nn.Linear` in `model.named_modules()`, as `find_classifier(model, batch).name` gives it; not needed
        where only one `nn.Linear` has as many outputs as the model has labels.

    ValueError: an unknown kind or option, several candidates, a model that has such a classifier already.
    """
    if installed_head(model) is not None:
        raise ValueError(f"{type(model).__name__} has a replaced classifier already: fold_classifier it first.")
    where = _linear_classifier(model) if name is None else name
    head = install_head(model, where, kind, options)
    model.config = _with_entry(model.config, {"name": where, "kind": kind, "options": head.options()})
    return head


def fold_classifier(model: PreTrainedModel, logit_scale: float = 1.0) -> Folded:
    """Turn the replaced classifier into one `nn.Linear`, so that the saved model loads without this package.

    In place, its configuration included. Fold for evaluation and publishing, after the training.

    logit_scale: what the training loss multiplied the logits with (`LongTailedLoss.logit_scale`); included in the
        weights.

    ValueError: the model has no replaced classifier, or one that is no linear function (DisAlign, TDE with several
        heads): publish a timm model with such a classifier with its code, see `add_remote_code`.
    """
    found = installed_head(model)
    if found is None:
        raise ValueError(f"{type(model).__name__} has no replaced classifier: there is nothing to fold.")
    name, head = found
    with torch.no_grad():
        weight, bias = head.folded()
    assert head.preserved is not None
    linear = nn.Linear(head.in_features, head.out_features, head.replaced_bias, device="meta")
    linear.weight = nn.Parameter(logit_scale * weight.detach())
    if head.replaced_bias:
        linear.bias = nn.Parameter(weight.new_zeros(len(weight)) if bias is None else logit_scale * bias.detach())
    model.set_submodule(name, linear.train(head.training))
    model.config = _without_entry(model.config)
    return Folded(name, head.kind, head.preserved)


def installed_head(model: nn.Module) -> tuple[str, Head] | None:
    """Name and module of the model's replaced classifier, None where it has none."""
    return next(((name, module) for name, module in model.named_modules() if isinstance(module, Head)), None)


def load_with_head(folder: str | os.PathLike[str], **options: Any) -> PreTrainedModel:
    """The model that `save_pretrained` wrote after `replace_classifier`, in evaluation mode.

    options: for `from_pretrained`. ValueError: a folder without a replaced classifier.
    """
    raw = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    if not str(raw.get("model_type")).endswith(SUFFIX):
        raise ValueError(f"{os.fspath(folder)!r} has no replaced classifier: load it by transformers' own classes.")
    base = CONFIG_MAPPING[raw["model_type"].removesuffix(SUFFIX)]
    config = _headed_config_class(base).from_pretrained(folder)
    if base is TimmWrapperConfig:
        return HeadedTimmForImageClassification.from_pretrained(folder, config=config, **options)
    return _headed_model_class(getattr(transformers, raw["architectures"][0])).from_pretrained(
        folder, config=config, **options
    )


def _headed_config_class(base: type[Any]) -> type[PreTrainedConfig]:
    if base is TimmWrapperConfig:
        return HeadedTimmConfig
    members = {"model_type": base.model_type + SUFFIX, "__module__": __name__}
    return type(f"{base.__name__}WithHead", (base,), members)


def _headed_model_class(base: type[Any]) -> type[PreTrainedModel]:
    class WithHead(base):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            install_head(self, **config.classifier_head)

    WithHead.__name__ = base.__name__
    return WithHead


def _with_entry(config: PreTrainedConfig, entry: dict[str, Any]) -> PreTrainedConfig:
    """The configuration under the name that tells of the replaced classifier."""
    content = _content(config)
    return _headed_config_class(type(config)).from_dict({**content, "classifier_head": entry})


def _without_entry(config: PreTrainedConfig) -> PreTrainedConfig:
    content = _content(config)
    for key in ("classifier_head", "image_processor_type"):
        content.pop(key, None)
    return CONFIG_MAPPING[config.model_type.removesuffix(SUFFIX)].from_dict(content)


def _content(config: PreTrainedConfig) -> dict[str, Any]:
    return {key: value for key, value in deepcopy(config.to_dict()).items() if key != "model_type"}


def _linear_classifier(model: PreTrainedModel) -> str:
    outputs = model.config.num_labels
    names = [n for n, m in model.named_modules() if isinstance(m, nn.Linear) and m.out_features == outputs]
    if len(names) != 1:
        found = ", ".join(names) or "none"
        raise ValueError(
            f"Not one nn.Linear of {type(model).__name__} has {outputs} outputs, but: {found}. Give the classifier's "
            "name, which find_classifier(model, batch).name finds by running the model."
        )
    return names[0]
