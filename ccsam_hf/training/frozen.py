"""A backbone that does not move while its classifier is trained: parameters, statistics and dropout."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from ..models import Head


class FrozenBackbone:
    """The parameters that a run has frozen, until ``release`` lets them train again."""

    def __init__(self) -> None:
        self._parameters: list[nn.Parameter] = []

    def add(self, model: nn.Module, trained: Iterable[nn.Parameter]) -> None:
        """Freeze every parameter but the ``trained`` ones; those that were frozen before stay so afterwards."""
        kept = {id(p) for p in trained}
        found = [p for p in model.parameters() if id(p) not in kept and p.requires_grad]
        for parameter in found:
            parameter.requires_grad_(False)
        self._parameters += found

    def release(self) -> None:
        for parameter in self._parameters:
            parameter.requires_grad_(True)
        self._parameters = []


def batch_norms(model: nn.Module) -> list[nn.Module]:
    """The model's layers that normalise by batch, SyncBatchNorm among them."""
    return [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


def keep_still(model: nn.Module, training: Iterable[nn.Module], shift_batch_norm: bool) -> None:
    """Evaluation mode, in which BatchNorm uses its stored statistics and dropout is off, but for the modules named and,
    with ``shift_batch_norm``, for BatchNorm, whose statistics then follow the batches."""
    model.eval()
    for module in (*training, *(batch_norms(model) if shift_batch_norm else ())):
        module.train()


def reinitialize(head: nn.Linear | Head, seed: int) -> None:
    """torch's own initialisation of a linear layer, with a bias of zero: a function of the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        fresh = nn.Linear(head.in_features, head.out_features)
    with torch.no_grad():
        head.weight.copy_(fresh.weight)
        if head.bias is not None:
            head.bias.zero_()
