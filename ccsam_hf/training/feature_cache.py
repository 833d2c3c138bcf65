"""Features of the frozen backbone, computed once and then drawn like images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Self

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, SequentialSampler
from tqdm.auto import tqdm

from ..data.counts import LabelledDataset
from ..data.draws import Draw, integers

VIEW_STREAM = 0xCAC4E


class CachedFeatures(LabelledDataset):
    """Features [V, N, D] of V augmented views of N images, with their labels.

    A ``Draw`` takes one of the views, chosen by (seed, epoch, position); a plain index takes the first.
    """

    def __init__(self, features: Tensor, labels: np.ndarray, seed: int) -> None:
        self.features, self._labels, self.seed = features, labels, seed

    @property
    def labels(self) -> np.ndarray:
        return self._labels

    def select(self, positions: Any) -> Self:
        index = np.asarray(positions, dtype=np.int64)
        return type(self)(self.features[:, torch.from_numpy(index)], self._labels[index], self.seed)

    def __getitem__(self, index: int) -> dict[str, Any]:
        view = 0
        if isinstance(index, Draw) and len(self.features) > 1:
            view = int(integers(len(self.features), self.seed, index.epoch, index.position, VIEW_STREAM)[0])
        return {"features": self.features[view, int(index)], "labels": int(self._labels[index])}


class _OneView(Sampler[Draw]):
    """Every image once in order, as the draws of an epoch that no training epoch uses."""

    def __init__(self, length: int, view: int) -> None:
        self.length, self.view = length, view

    def __iter__(self) -> Iterator[int]:  # type: ignore[override]
        return (Draw(i, self.view, i) for i in range(self.length))

    def __len__(self) -> int:
        return self.length


def cache_features(
    dataset: Any,
    views: int,
    seed: int,
    features_of: Callable[[dict[str, Any]], Tensor],
    accelerator: Accelerator,
    augmented: bool = True,
    progress_bar: bool = True,
    **loader_options: Any,
) -> CachedFeatures:
    """Run every image of ``dataset`` ``views`` times through ``features_of`` (batch -> [B, D]).

    The processes share the work and all end with the whole cache, in main memory. One view of a dataset without
    augmentation is exactly what training on images would see. Without ``augmented`` the images are those of
    evaluation. ``progress_bar`` shows one on the main process of each machine.
    """
    collected = []
    labels: Tensor = torch.empty(0)
    for view in range(views):
        sampler: Any = _OneView(len(dataset), view) if augmented else SequentialSampler(dataset)
        loader = accelerator.prepare(DataLoader(dataset, sampler=sampler, **loader_options))
        parts, marks = [], []
        hidden = not (progress_bar and accelerator.is_local_main_process)
        for batch in tqdm(loader, f"features, view {view + 1} of {views}", disable=hidden, leave=False):
            with torch.no_grad():
                features = features_of(batch)
            gathered, targets = accelerator.gather_for_metrics((features.contiguous(), batch["labels"]))
            parts.append(gathered.cpu())
            marks.append(targets.cpu())
        collected.append(torch.cat(parts))
        labels = torch.cat(marks)
    return CachedFeatures(torch.stack(collected), labels.numpy(), seed)
