"""What every metric asks of its inputs, checked in one place with one wording."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

IntArray: TypeAlias = NDArray[np.int64]
FloatArray: TypeAlias = NDArray[np.float64]
BoolArray: TypeAlias = NDArray[np.bool_]
ArrayLike: TypeAlias = Tensor | NDArray[Any] | Sequence[Any]

EMPTY_SPLIT = "There is nothing to evaluate: the split is empty. Check the split's name and its filters."


def to_numpy(values: ArrayLike) -> NDArray[Any]:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def class_indices(name: str, values: ArrayLike, num_classes: int, allow_rejection: bool = False) -> IntArray:
    """`values` as int64 [N] within 0..C-1 (and -1 for "rejected" or "open" where allowed)."""
    array = to_numpy(values)
    if array.ndim != 1:
        raise ValueError(f"{name} must be one class index for each image, but its shape is {list(array.shape)}.")
    if array.size and not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{name} must be whole class indices, not {array.dtype}; take the argmax of scores first.")
    array = array.astype(np.int64)
    wrong = (array < (-1 if allow_rejection else 0)) | (array >= num_classes)
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        raise ValueError(
            f"{name} holds class {array[first]} at position {first}, outside 0..{num_classes - 1}; "
            f"class_counts names {num_classes} classes: pass those of the data set the model was trained on."
        )
    return array


def paired(
    predictions: ArrayLike, references: ArrayLike, num_classes: int, allow_rejection: bool = False
) -> tuple[IntArray, IntArray]:
    """Predictions and references as equally long, non-empty class indices."""
    predicted = class_indices("predictions", predictions, num_classes, allow_rejection)
    labels = class_indices("references", references, num_classes, allow_rejection)
    if len(predicted) != len(labels):
        raise ValueError(
            f"{len(predicted)} predictions for {len(labels)} references; both must follow the same images in order."
        )
    if len(labels) == 0:
        raise ValueError(EMPTY_SPLIT)
    return predicted, labels


def counts_array(class_counts: ArrayLike) -> IntArray:
    """Training counts as int64 [C]."""
    counts = to_numpy(class_counts)
    if counts.ndim != 1 or counts.size == 0:
        raise ValueError(f"class_counts must list one count for each class, but its shape is {list(counts.shape)}.")
    return counts.astype(np.int64)


def checked_logits(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [B, C] in float64 and labels [B]; refuses logits that are not finite."""
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(f"Expected logits [B, C] and labels [B], got {list(logits.shape)} and {list(labels.shape)}.")
    if not bool(torch.isfinite(logits).all()):
        raise ValueError(
            "The logits hold NaN or infinity: the checkpoint diverged, or half precision overflowed. "
            "Evaluate in float32 (mixed_precision='no'); if it stays, the checkpoint is unusable."
        )
    if labels.numel() and (int(labels.min()) < 0 or int(labels.max()) >= logits.shape[1]):
        raise ValueError(
            f"Labels span {int(labels.min())}..{int(labels.max())} but the checkpoint knows classes "
            f"0..{logits.shape[1] - 1}; evaluate on the data set it was trained for."
        )
    return logits.detach().double(), labels
