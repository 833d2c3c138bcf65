"""The loss as a function of a flat weight vector: what every measure of this room is a function of."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from queue import SimpleQueue

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm.auto import tqdm

from .saved_results import Keep, compute_anew

SampleLosses = Callable[[Tensor], Tensor]


Point = tuple[str, Callable[[], Tensor]]


@dataclass(frozen=True)
class Objective:
    """Losses of N samples at any weight vector θ [k], and their group means.

    ``at(θ)`` returns a function from sample indices [B] to losses [B], differentiable in θ. ``start`` is the
    analysed θ. ``groups`` maps a name to sample weights [N] that sum to 1, so that a group's loss is Σ_i w_i l_i.
    ``recalibrated_at``, when given, replaces ``at`` wherever only values are needed: it re-estimates BatchNorm
    statistics at θ first (gradients and curvature hold the statistics of ``start`` fixed). ``shapes`` names the
    parameters that were concatenated into θ, in their order. ``replicate()`` is the objective that was
    made first, on a copy of the network, for another thread; None where a point is too cheap for that.
    """

    at: Callable[[Tensor], SampleLosses]
    start: Tensor
    groups: Mapping[str, Tensor]
    batch_size: int = 125
    recalibrated_at: Callable[[Tensor], SampleLosses] | None = None
    shapes: Mapping[str, torch.Size] = field(default_factory=dict)
    replicate: Callable[[], Objective] | None = None

    @property
    def weight_norm(self) -> float:
        return float(self.start.double().norm())

    @property
    def num_parameters(self) -> int:
        return self.start.numel()

    @torch.no_grad()
    def losses(self, theta: Tensor) -> Tensor:
        """l_i(θ), [N]; 0 for samples that no group counts, which are not run."""
        per_sample = (self.recalibrated_at or self.at)(theta)
        counted = torch.stack(list(self.groups.values())).amax(0) > 0
        losses = torch.zeros(len(counted), dtype=theta.dtype, device=theta.device)
        for index in counted.nonzero().squeeze(1).split(self.batch_size):
            losses[index] = per_sample(index)
        return losses

    def group_losses(self, theta: Tensor) -> Tensor:
        """Σ_i w_i l_i(θ) for every group, [G], in float64."""
        return weighted_sums(torch.stack(list(self.groups.values())), self.losses(theta))

    def gradient(self, weights: Tensor, theta: Tensor | None = None) -> Tensor:
        """∇_θ Σ_i w_i l_i, [k]; samples of weight 0 are not run."""
        point = (self.start if theta is None else theta).detach().requires_grad_()
        total = torch.zeros_like(point, requires_grad=False)
        for loss in self._weighted_batches(weights, point):
            total += torch.autograd.grad(loss, point)[0]
        return total

    def hessian_vector(self, weights: Tensor, vector: Tensor) -> Tensor:
        """(∇² Σ_i w_i l_i) v at ``start``, [k], by differentiating ⟨∇L, v⟩ (Pearlmutter 1994)."""
        point = self.start.detach().requires_grad_()
        total = torch.zeros_like(vector)
        # The fused attention kernels have no second derivative.
        with sdpa_kernel(SDPBackend.MATH):
            for loss in self._weighted_batches(weights, point, max(1, self.batch_size // 2)):
                (gradient,) = torch.autograd.grad(loss, point, create_graph=True)
                total += torch.autograd.grad(gradient @ vector, point)[0]
        return total

    def _weighted_batches(self, weights: Tensor, point: Tensor, size: int | None = None) -> Iterator[Tensor]:
        """The weighted loss batch by batch, so that only one graph is alive at a time."""
        for index in weights.nonzero().squeeze(1).split(size or self.batch_size):
            yield (weights[index] * self.at(point)(index)).sum()


def weighted_sums(weights: Tensor, losses: Tensor) -> Tensor:
    """Σ_i w_gi l_i for losses [..., N] and weights [G, N], [..., G] in float64.

    A sample of weight 0 does not count even when its loss is infinite, which 0 · inf = NaN would spoil.
    """
    weights, losses = weights.double(), losses.double()
    if bool(losses.isfinite().all()):
        return losses @ weights.T
    return torch.stack([torch.where(group > 0, losses, 0.0) @ group for group in weights], dim=-1)


def flatten(tensors: Mapping[str, Tensor]) -> Tensor:
    """Concatenate parameters into one vector [k]."""
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors.values()])


def unflatten(vector: Tensor, shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """Views of a vector [k] with the parameters' names and shapes; the inverse of `flatten`."""
    tensors = vector.split([math.prod(shape) for shape in shapes.values()])
    return {name: tensor.view(shape) for (name, shape), tensor in zip(shapes.items(), tensors, strict=True)}


def unit_directions(number: int, like: Tensor, seed: int) -> Tensor:
    """Directions uniform on the unit sphere, [number, k]; a function of the seed, whatever the device."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randn(number, like.numel(), generator=generator, dtype=torch.float32)
    return (draws / draws.norm(dim=1, keepdim=True)).to(like)


def losses_at(objective: Objective, points: Sequence[Point], keep: Keep = compute_anew, title: str = "") -> Tensor:
    """Group losses at weight vectors given as (name for ``keep``, θ when called), [P, G] in float64.

    On a CPU each of torch's threads takes points of its own, with a copy of the network. Threads that share every
    layer instead have to wait for each other at its end: ResNet-32 on two threads of a machine with other work then
    took 10 s for a point that one thread computes in 1.7 s. The values do not depend on the number of threads
    beyond the rounding of torch's own kernels.
    """
    workers = _workers(objective)
    replicas: SimpleQueue[Objective] = SimpleQueue()
    for number in range(workers):
        replicas.put(objective if number == 0 else _replica(objective))

    def losses(theta: Callable[[], Tensor]) -> list[float]:
        mine = replicas.get()
        try:
            return mine.group_losses(theta()).tolist()
        finally:
            replicas.put(mine)

    def kept(point: Point) -> list[float]:
        name, theta = point
        return keep(name, lambda: losses(theta))

    found = _in_order(kept, points, workers)
    rows = list(tqdm(found, title, len(points), leave=False, disable=None))
    return torch.tensor(rows, dtype=torch.float64)


def _replica(objective: Objective) -> Objective:
    """The objective, with its own groups, on a copy of the network."""
    assert objective.replicate is not None
    return replace(objective.replicate(), groups=objective.groups)


def _workers(objective: Objective) -> int:
    """As many points at a time as a CPU has threads; one on an accelerator, or where nothing can be copied."""
    return torch.get_num_threads() if objective.replicate is not None and objective.start.device.type == "cpu" else 1


def _in_order(compute: Callable[[Point], list[float]], points: Sequence[Point], workers: int) -> Iterator[list[float]]:
    """The values in the points' order; an interruption cancels the points that have not begun."""
    if workers == 1:
        yield from map(compute, points)
        return
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield from pool.map(compute, points)
    finally:
        torch.set_num_threads(threads)  # what a thread sets is also the default of threads that come later
