"""The network of a run, and how images become its input."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from transformers import AutoModelForImageClassification, PreTrainedModel, set_seed

from ..data import Benchmark, ImageConfig, ImageViews, image_views
from ..models import create_model, make_savable
from .options import OWN_IMAGES, BenchmarkOptions

LARGEST_IN_MEMORY = 64


def new_network(options: BenchmarkOptions, data: Benchmark, seed: int) -> PreTrainedModel:
    """The network initialised by its seed and told how its images are prepared.

    A benchmark's images are prepared as its record says, one's own as the architecture's weights expect them.
    """
    set_seed(seed)
    record = data.record
    prepared: dict[str, Any] = {"input_size": options.input_size}
    if options.benchmark != OWN_IMAGES:
        prepared = {
            "input_size": record.input_size if options.input_size is None else options.input_size,
            "mean": record.mean,
            "std": record.std,
            "crop_pct": record.crop_pct,
            "interpolation": record.interpolation,
        }
    if options.pretrained and not timm.is_model_pretrained(options.model):
        raise ValueError(
            f"--pretrained true: timm has no weights for --model {options.model}. Train it from scratch by "
            "--pretrained false, or choose another --model."
        )
    return create_model(
        options.model, data.num_classes, label_names=data.label_names, pretrained=options.pretrained, **prepared
    )


def saved_network(folder: Path) -> PreTrainedModel:
    """The network that an earlier stage left."""
    network = AutoModelForImageClassification.from_pretrained(folder)
    make_savable(network)
    return network


def network_views(
    data: Benchmark, network: PreTrainedModel, augmentation: str, seed: int, device: torch.device | None = None
) -> ImageViews:
    """The parts of the data as this network's inputs; small images of the benchmark's own size stay in memory.

    device: where these are held and augmented, default the CPU. ValueError for images that are not held in memory.
    """
    prepared = network.config.pretrained_cfg
    config = ImageConfig(
        tuple(prepared["input_size"]),
        tuple(prepared["mean"]),
        tuple(prepared["std"]),
        prepared["crop_pct"],
        prepared["interpolation"],
    )
    whole = config.input_size == tuple(data.record.input_size) and max(config.input_size[1:]) <= LARGEST_IN_MEMORY
    if device is not None and not whole:
        raise ValueError(
            f"--data_on_device: only images of up to {LARGEST_IN_MEMORY} pixels a side in the benchmark's own size are "
            "held in memory; leave it out and raise --dataloader_num_workers instead."
        )
    views = image_views(data, augmentation=augmentation, seed=seed, config=config, in_memory=whole)
    return views if device is None else views.to(device)


def train_only(network: PreTrainedModel, layers: Sequence[str] | None) -> None:
    """Leave only the parameters of the named modules trainable; None leaves all.

    BatchNorm statistics of the others still follow the batches, as in the field's programs for Places-LT.
    ValueError for a name without parameters.
    """
    if layers is None:
        return
    module: Any = network.timm_model
    for layer in layers:
        if not any(_belongs(name, layer) for name, _ in module.named_parameters()):
            children = ", ".join(name for name, _ in module.named_children())
            raise ValueError(f"--trainable_layers {layer}: the network has no such module; it has {children}.")
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(any(_belongs(name, layer) for layer in layers))


def _belongs(parameter: str, layer: str) -> bool:
    return parameter == layer or parameter.startswith(f"{layer}.")
