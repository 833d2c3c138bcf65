"""Perturbed passes of the whole batch, one group's weights at a time: any network, any statistics, 1 + G passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .group_gradients import GroupGradients, Perturbation
from .layout import GroupLayout
from .partition import Groups
from .state import RandomState, frozen_buffers, same_randomness


@contextmanager
def moved_weights(parameters: Mapping[str, nn.Parameter], moved: Mapping[str, Tensor]) -> Iterator[None]:
    """The parameters at other values inside, and bit for bit at their own afterwards, whatever happens inside.

    Forward *and* backward belong inside: some operators read their weights again in the backward, and checkpointing
    runs its forward there. Gradients of an earlier graph must not be asked for inside.
    """
    saved = {name: p.detach().clone() for name, p in parameters.items()}
    try:
        # Through .data: the graph of the clean pass stays valid, since the values come back before it is used.
        for name, p in parameters.items():
            p.data.copy_(moved[name])
        yield
    finally:
        for name, p in parameters.items():
            p.data.copy_(saved[name])


def batch_gradients(
    losses: Tensor,
    groups: Groups,
    layout: GroupLayout,
    parameters: Mapping[str, nn.Parameter],
    weights: Tensor | None = None,
    loss_scale: float | Tensor = 1.0,
    reduce: Callable[[Tensor], Tensor] | None = None,
    retain_graph: bool = False,
) -> GroupGradients:
    """∇ L_c of the groups of ``layout`` (made by ``GroupLayout.one_by_one``), one backward pass each.

    ``losses`` [B] are those of the clean pass. L_c is the mean over the group or, with ``weights`` [B], Σ w_i l_i
    (Focal-SAM). ``loss_scale`` keeps half precision from underflowing in the backward; the gradients are free of it.
    ``reduce`` sums a tensor over all processes and makes gradients and means those of the joined batch.
    ``retain_graph`` keeps the graph for the loss of the clean pass. ``.grad`` is not touched.
    """
    total = reduce or (lambda tensor: tensor)
    shapes = {name: p.shape for name, p in parameters.items()}
    gradients = GroupGradients(layout, shapes, keep=True)
    found: dict[str, list[Tensor]] = {name: [] for name in parameters}
    ids = layout.present.tolist()
    for k, group in enumerate(ids):
        mine = (groups.index == group).to(losses.dtype)
        share = weights * mine if weights is not None else mine / total(mine.sum()).clamp(min=1)
        wanted = torch.autograd.grad(
            (losses * share).sum() * loss_scale,
            list(parameters.values()),
            retain_graph=retain_graph or k + 1 < len(ids),
            allow_unused=True,
        )
        for (name, p), gradient in zip(parameters.items(), wanted, strict=True):
            value = torch.zeros_like(p) if gradient is None else gradient / loss_scale
            found[name].append(total(value)[None])
    for name, parts in found.items():
        gradients.add(name, parts.__getitem__)
    return gradients


def clean_weights(weights: Tensor, groups: Groups, flat_weight: float) -> Tensor:
    """What is left of the samples' weights [B] for the losses of the clean pass.

    (1 − a) w_i of every sample, and the a w_i of those whose group is not perturbed: their perturbed loss is the
    clean one. All zero when a = 1 and every group is perturbed; the backward pass of the clean loss may then be
    left out.
    """
    perturbed = groups.active[groups.index].to(weights.dtype)
    return weights * (1 - flat_weight * perturbed)


@dataclass(frozen=True)
class PerturbedPass:
    """One of the perturbed passes: the samples of ``group`` at W + ε_c, amid the whole batch.

        for run in perturbed_passes(...):
            with run.applied(), accumulate_unless(run.last):     # the last backward is the one that synchronises
                (run.weights * per_sample_losses()).sum().backward()

    ``weights`` [B] is zero outside the group.
    """

    group: int
    last: bool
    weights: Tensor
    applied: Callable[[], AbstractContextManager[None]]


def perturbed_passes(
    model: nn.Module,
    parameters: Mapping[str, nn.Parameter],
    groups: Groups,
    perturbation: Perturbation,
    weights: Tensor,
    state: RandomState,
) -> list[PerturbedPass]:
    """The passes that train each group at its own perturbed weights, in the order of the layout's groups.

    ``weights`` [B] are the samples' weights in the perturbed loss, flat_weight included; ``state`` the generators'
    state before the clean pass, so that dropout draws the same masks. Within a pass BatchNorm uses the statistics of
    the whole batch at W + ε_c, and its running ones come out as they were. Parameters and buffers are restored bit for
    bit when a pass ends or raises. Backward passes add to .grad and nothing else does. A backward pass of the clean
    loss comes before, outside of these passes.

    One group with a constant length is a textbook SAM step.
    """
    runs = []
    ids = perturbation.layout.present.tolist()
    for k, group in enumerate(ids):

        @contextmanager
        def applied(k: int = k) -> Iterator[None]:
            device = next(iter(parameters.values())).device
            values = {name: perturbation.moved(name, k, p.detach())[0] for name, p in parameters.items()}
            with frozen_buffers(model), same_randomness(state, device), moved_weights(parameters, values):
                yield

        mine = (groups.index == group).to(weights.dtype)
        runs.append(PerturbedPass(group, k + 1 == len(ids), weights * mine, applied))
    return runs
