"""What is handed to an analysis and what comes out of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

LoadModel = Callable[[], nn.Module]


@dataclass(frozen=True)
class Checkpoint:
    """A model to analyse: how to load it, and its input [N, ...] for sample indices [N] of the split.

    ``run`` holds (step, load) of earlier checkpoints of the same run, in order: they give the optimisation path and
    the history of the radii.
    """

    label: str
    load: LoadModel
    images: Callable[[Tensor], Tensor]
    run: Sequence[tuple[int, LoadModel]] = ()


@dataclass(frozen=True)
class LabelledSplit:
    """The split whose losses are analysed: its name, all its labels [N], and the *training* class counts [C]."""

    name: str
    labels: Tensor
    class_counts: Tensor
    is_training: bool = True

    def __post_init__(self) -> None:
        if self.class_counts.ndim != 1 or not bool((self.class_counts >= 0).all()) or self.class_counts.sum() < 1:
            raise ValueError(
                "Many-, medium- and few-shot classes need the class counts of the training set, one number for each "
                "class; pass class_counts (the checkpoint's config.json may hold them)."
            )
        if len(self.labels) == 0 or self.labels.min() < 0 or self.labels.max() >= len(self.class_counts):
            raise ValueError(
                f"The labels of split {self.name!r} do not lie in 0..{len(self.class_counts) - 1}: "
                "the class counts belong to another data set; pass those of this one."
            )


@dataclass(frozen=True)
class Analysis:
    """Results of one checkpoint: {part: numbers}, the files they lie in, and how many images each used size took."""

    label: str
    results: dict[str, Any]
    files: dict[str, Path]
    samples: dict[str, int]
    absent_groups: list[str] = field(default_factory=list)
