"""Open long-tailed recognition: images of unknown classes (label -1) among the test images.

A *score* says how known an image looks (higher = more known); an image whose score is below the threshold is rejected,
prediction -1. Protocol of Liu et al. 2019 (OLTR).
"""

import numpy as np

from ccsam_hf.metrics.accuracy import accuracy_from_counts
from ccsam_hf.metrics.inputs import ArrayLike, FloatArray, IntArray, counts_array, paired, to_numpy
from ccsam_hf.shots import ShotThresholds

OPEN = -1


def reject(predictions: ArrayLike, scores: ArrayLike, threshold: float) -> IntArray:
    """Predictions with -1 where the score is below the threshold."""
    return np.where(_scores(scores) < threshold, OPEN, to_numpy(predictions).astype(np.int64))


def f_measures(predictions: ArrayLike, references: ArrayLike, num_classes: int) -> dict[str, float]:
    """Open-set F in both published definitions.

    TP: known image, predicted right. FN: open image, not rejected. FP: known image with a prediction other than its
    label, where `f_measure` (OLTR's present code) counts a rejected known image and `f_measure_before_2020` (its code
    until January 2020, which earlier tables quote) does not. precision = TP / (TP + FP), recall = TP / (TP + FN),
    F = 2 TP / (2 TP + FP + FN); 0 when TP is 0.
    """
    predicted, labels = paired(predictions, references, num_classes, allow_rejection=True)
    known = labels != OPEN
    hits = int(np.sum(known & (predicted == labels)))
    wrong = int(np.sum(known & (predicted != labels)))
    wrong_not_rejected = int(np.sum(known & (predicted != labels) & (predicted != OPEN)))
    accepted_open = int(np.sum(~known & (predicted != OPEN)))
    return {
        "f_measure": _share(2 * hits, wrong + accepted_open),
        "precision": _share(hits, wrong),
        "recall": _share(hits, accepted_open),
        "f_measure_before_2020": _share(2 * hits, wrong_not_rejected + accepted_open),
        "precision_before_2020": _share(hits, wrong_not_rejected),
    }


def _share(hits: int, others: int) -> float:
    return hits / (hits + others) if hits else 0.0


def open_set_figures(
    predictions: ArrayLike,
    references: ArrayLike,
    scores: ArrayLike,
    threshold: float,
    class_counts: ArrayLike,
    thresholds: ShotThresholds | None = None,
) -> dict[str, float | None]:
    """Everything that depends on the rejection threshold.

    many/medium/few and the two overall accuracies are over known images, with rejection counted as an error; F in both
    definitions, beside F of never rejecting, without which no F can be judged (of ten known and one open image, ten of
    them right, never rejecting has F = 0.95).
    """
    counts = counts_array(class_counts)
    shots = thresholds or ShotThresholds()
    predicted, labels = paired(predictions, references, len(counts), allow_rejection=True)
    decided = reject(predicted, scores, threshold)
    known = labels != OPEN
    correct = np.bincount(labels[known & (decided == labels)], minlength=len(counts))
    images = np.bincount(labels[known], minlength=len(counts))
    never = f_measures(predicted, labels, len(counts))
    return {
        "threshold": threshold,
        **accuracy_from_counts(correct, images, counts, shots),
        **f_measures(decided, labels, len(counts)),
        "f_measure_never_rejecting": never["f_measure"],
        "rejected_known": float(np.mean(decided[known] == OPEN)) if known.any() else None,
        "rejected_open": float(np.mean(decided[~known] == OPEN)) if not known.all() else None,
    }


def detection_figures(scores: ArrayLike, references: ArrayLike) -> dict[str, float | None]:
    """Threshold-free figures of telling known from open images; None when one of both is missing."""
    values, known = _scores(scores), to_numpy(references) != OPEN
    if len(values) != len(known):
        raise ValueError(
            f"{len(values)} scores for {len(known)} references; both must follow the same images in order."
        )
    if known.all() or not known.any():
        return dict.fromkeys(("auroc", "aupr_known", "aupr_open", "fpr_at_95_tpr"))
    return {
        "auroc": auroc(values[known], values[~known]),
        "aupr_known": average_precision(values[known], values[~known]),
        "aupr_open": average_precision(-values[~known], -values[known]),
        "fpr_at_95_tpr": false_positive_rate(values[known], values[~known], 0.95),
    }


def auroc(positive: FloatArray, negative: FloatArray) -> float:
    """P(positive > negative) + P(equal) / 2 over all pairs of scores."""
    order = np.sort(negative)
    below, up_to = np.searchsorted(order, positive, "left"), np.searchsorted(order, positive, "right")
    return float((below + up_to).sum() / 2 / len(positive) / len(negative))


def roc_curve(positive: FloatArray, negative: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Thresholds (all scores, descending), and the shares of negative and of positive scores at or above each."""
    thresholds = np.unique(np.concatenate([positive, negative]))[::-1]
    true_rate = 1 - np.searchsorted(np.sort(positive), thresholds, "left") / len(positive)
    false_rate = 1 - np.searchsorted(np.sort(negative), thresholds, "left") / len(negative)
    return thresholds, false_rate, true_rate


def average_precision(positive: FloatArray, negative: FloatArray) -> float:
    """Area under precision over recall as the step sum Σ (R_k - R_{k-1}) P_k; equal scores enter together."""
    _, false_rate, true_rate = roc_curve(positive, negative)
    hits = true_rate * len(positive)
    precision = hits / (hits + false_rate * len(negative))
    return float(np.sum(np.diff(true_rate, prepend=0.0) * precision))


def false_positive_rate(positive: FloatArray, negative: FloatArray, true_positive_rate: float) -> float:
    """Share of negatives accepted at the highest threshold that accepts this share of the positives."""
    return float(np.mean(negative >= threshold_for_recall(positive, true_positive_rate)))


def threshold_for_recall(known_scores: ArrayLike, recall: float = 0.95) -> float:
    """Highest threshold at which this share of known *hold-out* images is accepted; needs no open images."""
    values = np.sort(_scores(known_scores))[::-1]
    if not 0 < recall <= 1 or not len(values):
        raise ValueError(f"Need known hold-out images and a share in (0, 1], got {len(values)} and {recall}.")
    # The slack keeps 0.95 of 20 images at 19: 0.95 * 20 may round to above 19.
    return float(values[int(np.ceil(recall * len(values) - 1e-9)) - 1])


def threshold_for_f(predictions: ArrayLike, references: ArrayLike, scores: ArrayLike, num_classes: int) -> float:
    """Threshold with the best `f_measure` on a *hold-out* that holds open images too; ties: the lowest."""
    predicted, labels = paired(predictions, references, num_classes, allow_rejection=True)
    values = _scores(scores)
    known = labels != OPEN
    if known.all() or not known.any():
        raise ValueError("Choosing a threshold by F needs both known and open hold-out images; label open ones -1.")
    candidates = np.unique(values)
    right, outside = np.sort(values[known & (predicted == labels)]), np.sort(values[~known])
    hits = len(right) - np.searchsorted(right, candidates, "left")
    accepted_open = len(outside) - np.searchsorted(outside, candidates, "left")
    f = 2 * hits / np.maximum(2 * hits + (known.sum() - hits) + accepted_open, 1)
    return float(candidates[int(np.argmax(f))])


def _scores(scores: ArrayLike) -> FloatArray:
    values = to_numpy(scores).astype(np.float64)
    if np.isnan(values).any():
        raise ValueError(f"{np.isnan(values).sum()} open-set scores are NaN; the checkpoint's outputs are not finite.")
    return values
