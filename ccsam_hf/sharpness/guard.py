"""Analyse a model and give it back as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without parameter gradients inside; afterwards everything is back, bit for bit.

    Everything: parameters, buffers, `.grad`, training flags, `requires_grad` and BatchNorm momenta.
    """
    saved = [(tensor, tensor.detach().clone()) for tensor in chain(model.parameters(), model.buffers())]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    modes = [(module, module.training) for module in model.modules()]
    momenta = [(module, module.momentum) for module in batch_norms(model).values()]
    model.eval().requires_grad_(False)
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, before in saved:
                tensor.copy_(before)
        for parameter, requires_grad in flags:
            parameter.requires_grad_(requires_grad)
        for module, training in modes:
            module.training = training
        for norm, momentum in momenta:
            norm.momentum = momentum


def batch_norms(model: nn.Module) -> dict[str, _BatchNorm]:
    """BatchNorm layers that keep running statistics, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    }


@torch.no_grad()
def estimated_statistics(model: nn.Module, parameters: dict[str, Tensor], batches: list[Tensor]) -> dict[str, Tensor]:
    """BatchNorm buffers re-estimated at other weights: plain means over ``batches`` of images, a new dictionary.

    ``parameters`` stand in for the model's own; the model's buffers are not written. Dropout stays off.
    """
    norms = batch_norms(model)
    statistics = {}
    for name, norm in norms.items():
        prefix = f"{name}." if name else ""
        assert norm.running_mean is not None
        assert norm.running_var is not None
        statistics[f"{prefix}running_mean"] = torch.zeros_like(norm.running_mean)
        statistics[f"{prefix}running_var"] = torch.ones_like(norm.running_var)
        statistics[f"{prefix}num_batches_tracked"] = torch.zeros((), dtype=torch.long, device=norm.running_mean.device)
    momenta = {name: norm.momentum for name, norm in norms.items()}
    for norm in norms.values():
        norm.momentum = None  # the mean over all batches instead of a moving one
        norm.training = True
    for images in batches:
        functional_call(model, {**parameters, **statistics}, (images,))
    for name, norm in norms.items():
        norm.momentum = momenta[name]
        norm.training = False
    return statistics
