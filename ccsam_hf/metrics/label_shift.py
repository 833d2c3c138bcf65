"""Test sets whose classes are not equally frequent, and logits corrected for the frequencies trained on."""

import re

import numpy as np
import torch
from torch import Tensor

from .inputs import ArrayLike, FloatArray, IntArray, counts_array

TARGET_PATTERN = re.compile(r"uniform|(forward|backward)-(\d+(?:\.\d+)?)")


def target_distribution(name: str, class_counts: ArrayLike) -> FloatArray:
    """Class distribution [C] of a shifted test set (LADE, Hong et al. 2021; SADE, Zhang et al. 2022).

    "uniform"; "forward-R", p_c ∝ R^(-rank_c/(C-1)) with the classes ranked from most to least trained on (ties: label
    order), so that the test set is long-tailed like the training set with imbalance ratio R; "backward-R" the reverse.

    Example:
        >>> [round(share, 2) for share in target_distribution("forward-4", [50, 9]).tolist()]
        [0.8, 0.2]
    """
    counts = counts_array(class_counts)
    match = TARGET_PATTERN.fullmatch(name)
    ratio = float(match[2]) if match and match[2] else 1.0
    if not match or ratio < 1:
        raise ValueError(
            f"Unknown target distribution {name!r}; use 'uniform', 'forward-R' or 'backward-R' with an imbalance ratio "
            "R of at least 1, for instance 'forward-50'."
        )
    rank = np.empty(len(counts))
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    position = rank / max(len(counts) - 1, 1)
    weights = ratio ** -(1 - position if match[1] == "backward" else position)
    return weights / weights.sum()


def accuracy_under(correct: IntArray, images: IntArray, target: FloatArray) -> float | None:
    """Expected accuracy if class c had the share target_c: Σ_c target_c · correct_c / images_c.

    Exact for the images at hand and without the noise of drawing a subset, as LADE and SADE do. The target is
    renormalised over the classes with test images; None when no such class has a share.
    """
    present = (images > 0) & (target > 0)
    if not present.any():
        return None
    shares = target[present] / target[present].sum()
    return float(np.sum(shares * (correct[present] / images[present])))


def prior_replacement(target: FloatArray, source: FloatArray) -> Tensor:
    """log target_c - log source_c, [C]: added to logits that presume the class prior `source`, puts `target` in its
    place (Saerens et al. 2002; LADE's "PC softmax")."""
    if (source <= 0).any():
        raise ValueError(
            f"The class prior that the logits presume is 0 for class {np.flatnonzero(source <= 0)[0]}, which nothing "
            "can correct; give it a positive share or evaluate without target distributions."
        )
    return torch.as_tensor(target).log() - torch.as_tensor(source).log()
