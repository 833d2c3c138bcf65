"""One figure for a whole vector of class accuracies, from lenient to strict."""

import math

import numpy as np

from ccsam_hf.metrics.inputs import FloatArray, IntArray


def accuracy_summary(accuracies: FloatArray) -> dict[str, float | None]:
    """Means and worst cases of the class accuracies [C]; classes without test images (NaN) are left out.

    harmonic_mean = K / Σ_c 1/a_c and geometric_mean = (Π_c a_c)^(1/K) are 0 as soon as one class is never right (some
    authors put 1e-3 in its place). worst_decile is the mean of the ceil(K/10) worst classes.
    """
    present = np.sort(accuracies[~np.isnan(accuracies)])
    names = ("harmonic_mean", "geometric_mean", "worst_class", "worst_decile")
    if present.size == 0:
        return dict.fromkeys(names)
    never_right = present[0] == 0
    harmonic = 0.0 if never_right else present.size / np.sum(1 / present)
    geometric = 0.0 if never_right else math.exp(np.mean(np.log(present)))
    worst_decile = present[: math.ceil(present.size / 10)].mean()
    return dict(zip(names, map(float, (harmonic, geometric, present[0], worst_decile)), strict=True))


def f1_scores(correct: IntArray, total: IntArray, predicted: IntArray) -> FloatArray:
    """F1 of each class, 2 correct_c / (total_c + predicted_c); NaN for a class without test images."""
    scores = np.divide(2 * correct, total + predicted, out=np.zeros(len(total)), where=total + predicted > 0)
    return np.where(total > 0, scores, np.nan)
