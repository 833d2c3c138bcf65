"""Classifiers from folders and Hub ids, whichever library wrote them."""

import os
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    BaseImageProcessor,
    PreTrainedConfig,
    PreTrainedModel,
    TimmWrapperConfig,
)

from .. import models as _registers_the_cifar_resnets  # noqa: F401
from .classifier import Classifier
from .images import ImageTransform


def load_classifier(
    folder_or_hub_id: str | os.PathLike[str],
    *,
    revision: str | None = None,
    token: str | None = None,
    device: str | torch.device | None = None,
    trust_remote_code: bool = False,
) -> Classifier:
    """A classifier from a folder or a Hub id, whether this package, timm's `save_for_hf` or transformers wrote it.

    revision, token: for the Hub. device: the accelerator when there is one, else the CPU, by default.
    trust_remote_code: run the Python file that a checkpoint with an architecture of its own ships.

    ValueError: no such folder or model, a folder without config.json or image-processor settings, an architecture
    that timm does not know, a multi-label model.
    """
    source = _checked_source(folder_or_hub_id)
    where: dict[str, Any] = {"revision": revision, "token": token}
    try:
        raw, _ = PreTrainedConfig.get_config_dict(source, **where)
        config = _config(source, raw, trust_remote_code=trust_remote_code, **where)
        model = AutoModelForImageClassification.from_pretrained(
            source, config=config, trust_remote_code=trust_remote_code, **where
        )
    except ImportError as error:
        raise ValueError(
            f"{source!r} has an architecture that timm does not know. Import the package that registers it, or pass "
            f"trust_remote_code=True if the checkpoint ships its code. ({error})"
        ) from error
    except OSError as error:
        raise ValueError(
            f"No model could be loaded from {source!r}, neither as a folder nor from the Hub: {error}"
        ) from error
    processor = _processor(source, trust_remote_code=trust_remote_code, **where)
    return _classifier(model, processor, raw, device)


def _checked_source(folder_or_hub_id: str | os.PathLike[str]) -> str:
    source = os.fspath(folder_or_hub_id)
    if Path(source).is_dir():
        if not (Path(source) / "config.json").is_file():
            raise ValueError(f"{source!r} has no config.json: name the folder that save_pretrained wrote.")
    elif isinstance(folder_or_hub_id, Path) or source.startswith((".", "~", os.sep)) or source.count("/") > 1:
        raise ValueError(f"There is no folder {source!r}: check the path.")
    return source


def _config(source: str, raw: dict[str, Any], **where: Any) -> PreTrainedConfig:
    """The configuration, repaired where timm's saver writes what transformers' timm wrapper does not read.

    timm keeps the label names of a model that it loaded under pretrained_cfg, and repeats the number of classes in
    model_args.
    """
    names = raw.get("label_names") or raw.get("pretrained_cfg", {}).get("label_names")
    labels = {}
    if names and "id2label" not in raw:
        labels = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    config = AutoConfig.from_pretrained(source, **where, **labels)
    if isinstance(config, TimmWrapperConfig):
        config.model_args = {key: value for key, value in (config.model_args or {}).items() if key != "num_classes"}
    return config


def _processor(source: str, **where: Any) -> BaseImageProcessor:
    try:
        return AutoImageProcessor.from_pretrained(source, **where)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{source!r} does not say how an image becomes the model's input: save the image processor beside the "
            f"model with processor.save_pretrained. ({error})"
        ) from error


def _classifier(
    model: PreTrainedModel, processor: BaseImageProcessor, raw: dict[str, Any], device: str | torch.device | None
) -> Classifier:
    config: Any = model.config
    if config.problem_type == "multi_label_classification":
        raise ValueError("The model gives several labels to an image: use pipeline('image-classification') for it.")
    counts = raw.get("class_counts")
    if counts is not None and len(counts) != config.num_labels:
        raise ValueError(f"config.json has {len(counts)} class_counts for {config.num_labels} classes: correct it.")
    if device is None:
        device = torch.accelerator.current_accelerator(check_available=True) or "cpu"
    placed: Any = model
    placed.to(device)
    channels = config.pretrained_cfg["input_size"][0] if isinstance(config, TimmWrapperConfig) else 3
    return Classifier(
        model=placed.eval(),
        transform=ImageTransform(processor, channels),
        label_names=[config.id2label[i] for i in range(config.num_labels)],
        class_counts=counts,
        training_prior=raw.get("training_prior"),
    )
