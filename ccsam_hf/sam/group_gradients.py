"""Gradients of the groups' mean losses, and the perturbations made of them, one segment of the batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from .layout import GroupLayout

SegmentGradient = Callable[[int], Tensor]


def per_group(values: Tensor, like: Tensor) -> Tensor:
    """Values of groups [g] shaped to multiply a tensor [g, ...]."""
    return values.to(like.dtype).view(-1, *[1] * (like.dim() - 1))


def joint_norm(norms: Mapping[str, Tensor]) -> Tensor:
    """(Σ over parameters of norm²)^½ of norms [P] of each parameter, in double precision so that nothing underflows."""
    stacked = torch.stack(list(norms.values()))
    return torch.linalg.vector_norm(stacked, dim=0, dtype=torch.float64).to(stacked.dtype)


class GroupGradients:
    """∇ L_c with respect to each perturbed parameter, for every present group c, as a backward pass delivers them.

    ``keep=True`` holds the gradients themselves, P times the parameters. ``keep=False`` holds what they are made of,
    a layer's inputs and output gradients, and multiplies again whenever a segment is asked for: the memory is that
    of the activations and of one segment of one layer, the time that of one or two more passes.
    """

    def __init__(self, layout: GroupLayout, shapes: Mapping[str, torch.Size], keep: bool) -> None:
        self.layout = layout
        self.shapes = dict(shapes)
        self.loss_scale = 1.0
        self._keep = keep
        self._kept: dict[str, list[Tensor]] = {}
        self._sources: dict[str, list[SegmentGradient]] = {}

    def add(self, name: str, gradient: SegmentGradient, cheap: bool = False) -> None:
        """One use of a parameter: ``gradient(k)`` is [groups of segment k, *shape]. Uses of one parameter add up."""
        if not (self._keep or cheap):
            self._sources.setdefault(name, []).append(gradient)
            return
        parts = [gradient(k) for k in range(len(self.layout.segments))]
        if name in self._kept:
            parts = [old + new for old, new in zip(self._kept[name], parts, strict=True)]
        self._kept[name] = parts

    def segment(self, name: str, k: int) -> Tensor:
        """The gradients of segment k's groups, [g, *shape], multiplied by ``loss_scale``."""
        parts = [self._kept[name][k]] if name in self._kept else []
        parts += [source(k) for source in self._sources.get(name, [])]
        if parts:
            return parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)
        number = self.layout.segments[k].number
        return torch.zeros(number, *self.shapes[name], device=self.layout.order.device)

    def norms(self, metric: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """‖T g_c‖ of each parameter by itself, [P] in the layout's order, T elementwise (default 1)."""
        found = {}
        for name in self.shapes:
            if name not in self._kept and name not in self._sources:
                continue
            parts = []
            for k in range(len(self.layout.segments)):
                gradient = self.segment(name, k)
                if metric is not None:
                    gradient = gradient * metric[name]
                parts.append(torch.linalg.vector_norm(gradient.flatten(1), dim=1))
            found[name] = (torch.cat(parts) if parts else torch.zeros(0)) / self.loss_scale
        return found

    def total_norms(self) -> Tensor:
        """‖g_c‖ over all perturbed parameters together, [G], 0 for absent groups."""
        return self.layout.spread(joint_norm(self.norms()))

    def dense(self, name: str) -> Tensor:
        """The gradients of all present groups, [P, *shape]."""
        return torch.cat([self.segment(name, k) for k in range(len(self.layout.segments))]) / self.loss_scale


class Perturbation(Protocol):
    """ε_c of each perturbed parameter, one segment at a time."""

    layout: GroupLayout

    def moved(self, name: str, k: int, weight: Tensor) -> Tensor:
        """W + ε_c for the groups c of segment k, [g, *shape]."""
        ...


@dataclass
class AlongGradient:
    """ε_c = scale_c · T² g_c with one scale [P] for each parameter and an optional elementwise T² (ASAM)."""

    gradients: GroupGradients
    scales: Mapping[str, Tensor]
    metric: Mapping[str, Tensor] | None = None
    layout: GroupLayout = field(init=False)

    def __post_init__(self) -> None:
        self.layout = self.gradients.layout

    def moved(self, name: str, k: int, weight: Tensor) -> Tensor:
        if name not in self.scales:
            return weight.expand(self.layout.segments[k].number, *weight.shape)
        gradient = self.gradients.segment(name, k)
        if self.metric is not None:
            gradient = gradient * self.metric[name]
        scale = self.scales[name][self.layout.segments[k].groups] / self.gradients.loss_scale
        return torch.addcmul(weight, gradient, per_group(scale, gradient))


@dataclass
class Fixed:
    """ε_c given outright, [P, *shape] for each parameter in the layout's order (Gaussian noise, a test)."""

    layout: GroupLayout
    epsilon: Mapping[str, Tensor]

    def moved(self, name: str, k: int, weight: Tensor) -> Tensor:
        return weight + self.epsilon[name][self.layout.segments[k].groups]
