"""Which of the checkpoint's classes is which of the data set's: by name, never by guess."""

import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

PLACEHOLDER = re.compile(r"LABEL_\d+")


def checkpoint_names(id2label: Mapping[Any, str] | None, num_classes: int) -> list[str] | None:
    """Class names of a checkpoint in label order; None when it has none but transformers' placeholders."""
    names = [str(id2label[c]) for c in sorted(id2label, key=int)] if id2label else []
    if len(names) != num_classes or all(PLACEHOLDER.fullmatch(name) for name in names):
        return None
    return names


def match_labels(dataset: Sequence[str] | None, checkpoint: Sequence[str] | None, num_classes: int) -> Tensor:
    """The checkpoint's class of each of the data set's classes, LongTensor.

    Names in another order are matched; the data set may have fewer classes than the checkpoint. Where one side has no
    names, labels are taken as they are, provided that the data set has no more classes than the checkpoint.

    Raises:
        ValueError: a name the checkpoint does not know, names that occur twice in different order, or too many classes.
    """
    if dataset is None or checkpoint is None:
        classes = num_classes if dataset is None else len(dataset)
        if classes > num_classes:
            raise ValueError(
                f"The data set has {classes} classes, the checkpoint {num_classes}, and there are no names to match "
                "them by; evaluate on the data set the checkpoint was trained for."
            )
        return torch.arange(classes)
    if list(dataset) == list(checkpoint):
        return torch.arange(num_classes)
    position = {name: c for c, name in enumerate(checkpoint)}
    if len(position) < len(checkpoint) or len(set(dataset)) < len(dataset):
        raise ValueError(
            "The label names of data set and checkpoint are in different order and some occur twice, so they cannot be "
            "matched; give every class its own name."
        )
    unknown = [name for name in dataset if name not in position]
    if unknown:
        raise ValueError(
            f"{len(unknown)} of the data set's {len(dataset)} classes are unknown to the checkpoint, the first is "
            f"{unknown[0]!r}; the checkpoint knows {', '.join(map(repr, checkpoint[:3]))}, ... Evaluate on the data "
            "set it was trained for, or rename its classes (config.id2label) to match."
        )
    return torch.tensor([position[name] for name in dataset])


def shown_names(checkpoint: Sequence[str] | None, dataset: Sequence[str] | None, num_classes: int) -> list[str]:
    """What to call each of the checkpoint's classes: its names, else the data set's, else numbers."""
    if checkpoint is not None:
        return list(checkpoint)
    given = list(dataset or [])
    return [*given, *map(str, range(len(given), num_classes))]


def training_counts(
    given: Tensor | Sequence[int] | None, recorded: Sequence[int] | None, mapping: Tensor, num_classes: int
) -> Tensor:
    """Training counts in the checkpoint's order, [C].

    given: in the data set's order; recorded: `config.class_counts`. The given ones win, with a warning when they
    differ, because they decide which classes are many-, medium- and few-shot.
    """
    if given is None and recorded is None:
        raise ValueError(
            "The checkpoint records no class counts (config.class_counts), so many-, medium- and few-shot classes are "
            "unknown; pass class_counts, the number of training images of each class."
        )
    if recorded is not None and len(recorded) != num_classes:
        raise ValueError(
            f"config.class_counts has {len(recorded)} entries but the checkpoint {num_classes} classes; repair the "
            "config or pass class_counts."
        )
    if given is None:
        return torch.as_tensor(recorded)
    counts = torch.as_tensor(given)
    if counts.shape != mapping.shape:
        raise ValueError(f"{counts.numel()} class_counts for {len(mapping)} classes; pass one count for each class.")
    placed = torch.zeros(num_classes, dtype=torch.long)
    placed[mapping] = counts.long()
    if recorded is not None and placed.tolist() != list(recorded):
        warnings.warn(
            "class_counts differ from those the checkpoint was trained with (config.class_counts); the shot groups "
            "follow the ones given.",
            stacklevel=3,
        )
    return placed
