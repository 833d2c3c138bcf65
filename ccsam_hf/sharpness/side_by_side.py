"""Group losses at many weight vectors, several of them at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from queue import SimpleQueue

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ccsam_hf.sharpness.objective import Objective
from ccsam_hf.sharpness.pieces import Keep, compute_anew

Point = tuple[str, Callable[[], Tensor]]


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
