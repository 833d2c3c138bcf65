"""Open long-tailed recognition: images of unknown classes (label -1) among the test images.

A *score* says how known an image looks (higher = more known); an image whose score is below the threshold is rejected,
prediction -1. Protocol of Liu et al. 2019 (OLTR). First the figures; then the scores [B] from logits [B, C] and
features [B, D], of which none learns and some take the class means of the training features; last OpenMax.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..shots import ShotThresholds
from .accuracy import accuracy_from_counts
from .calibration import from_fixed, to_fixed
from .inputs import ArrayLike, FloatArray, IntArray, counts_array, paired, to_numpy

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

    Example:
        >>> f_measures([0, -1, 1], [0, -1, -1], num_classes=2)["recall"]
        0.5
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


LARGEST_FEATURE = 4096.0  # half a million samples of a class then fit the fixed-point sum


@dataclass(frozen=True)
class ClassSums:
    """Additive material of class means: fixed-point sums int64 [C, D] and sample counts int64 [C]."""

    total: Tensor
    count: Tensor

    @staticmethod
    def zeros(num_classes: int, width: int) -> "ClassSums":
        return ClassSums(torch.zeros(num_classes, width, dtype=torch.long), torch.zeros(num_classes, dtype=torch.long))

    @staticmethod
    def of(vectors: Tensor, labels: Tensor, num_classes: int) -> "ClassSums":
        """Sums of vectors [B, D] by label [B]."""
        if not bool((vectors.abs() <= LARGEST_FEATURE).all()):
            raise ValueError(
                f"Training features hold NaN or values beyond {LARGEST_FEATURE:g}: evaluate in float32 "
                "(mixed_precision='no') or choose a scorer that needs no features."
            )
        total = torch.zeros(num_classes, vectors.shape[1], dtype=torch.long, device=vectors.device)
        count = torch.zeros(num_classes, dtype=torch.long, device=vectors.device)
        return ClassSums(
            total.index_add_(0, labels, to_fixed(vectors)), count.index_add_(0, labels, torch.ones_like(labels))
        )

    def __add__(self, other: "ClassSums") -> "ClassSums":
        device = other.total.device
        return ClassSums(self.total.to(device) + other.total, self.count.to(device) + other.count)

    def means(self) -> Tensor:
        """Class means, float64 [C, D]; NaN rows for classes without a sample (never the nearest)."""
        return from_fixed(self.total) / self.count[:, None].double().where(self.count[:, None] > 0, torch.nan)


def maximum_probability(logits: Tensor) -> Tensor:
    """max_c softmax(logits)_c (Hendrycks & Gimpel 2017; OLTR thresholds it at 0.1)."""
    return logits.double().softmax(dim=1).amax(dim=1)


def maximum_logit(logits: Tensor) -> Tensor:
    """max_c logits_c (Hendrycks et al. 2022)."""
    return logits.double().amax(dim=1)


def negative_energy(logits: Tensor) -> Tensor:
    """log Σ_c exp(logits_c), the negative free energy at temperature 1 (Liu et al. 2020)."""
    return logits.double().logsumexp(dim=1)


def euclidean_similarity(features: Tensor, means: Tensor) -> Tensor:
    """-min_c ‖z - m_c‖."""
    distances = torch.cdist(features.double(), means, compute_mode="donot_use_mm_for_euclid_dist")
    return -distances.nan_to_num(nan=torch.inf).amin(dim=1)


def cosine_similarity(features: Tensor, means: Tensor) -> Tensor:
    """max_c cos(z, m_c), the paper's "prototype-based metric"."""
    return _cosines(features, means).amax(dim=1)


def probability_times_similarity(logits: Tensor, features: Tensor, means: Tensor) -> Tensor:
    """max_c softmax(logits)_c · max(cos(z, m_c), 0): classifier and prototypes must agree on a class."""
    return (logits.double().softmax(dim=1) * _cosines(features, means).clamp(min=0)).amax(dim=1)


def _cosines(features: Tensor, means: Tensor) -> Tensor:
    cosines = normalize(features.double(), dim=1) @ normalize(means, dim=1).nan_to_num(nan=0.0).T
    return cosines.masked_fill(means.isnan().any(dim=1), -1.0)


Scorer = Callable[[Tensor, Tensor, Tensor], Tensor]

# Name -> score of (logits, features, class means). OpenMax has a fit of its own, `fit_openmax`.
SCORERS: dict[str, Scorer] = {
    "probability": lambda logits, features, means: maximum_probability(logits),
    "logit": lambda logits, features, means: maximum_logit(logits),
    "energy": lambda logits, features, means: negative_energy(logits),
    "euclidean": lambda logits, features, means: euclidean_similarity(features, means),
    "cosine": lambda logits, features, means: cosine_similarity(features, means),
    "product": probability_times_similarity,
}
NEED_FEATURES = ("euclidean", "cosine", "product")
# Scores that are probabilities, for which OLTR's fixed threshold of 0.1 means something.
PROBABILITIES = ("probability", "product", "openmax")


FEWEST_IN_TAIL = 3
STEEPEST = 1e4


@dataclass(frozen=True)
class Weibull:
    """Upper tails of distances: P(X <= x) = 1 - exp(-((x - origin)/scale)^shape), arrays of one shape."""

    shape: FloatArray
    scale: FloatArray
    origin: FloatArray


@dataclass(frozen=True)
class OpenMax:
    """Class means of the training logits [C, C] and one Weibull tail a class.

    alpha: how many of the largest logits give up mass, the i-th largest (i = 0, 1, ...) by the share
    (alpha - i)/alpha · P(distance <= that to the class's mean).
    """

    means: Tensor
    tails: Weibull
    alpha: int = 10

    def known_probability(self, logits: Tensor) -> Tensor:
        """1 - P(unknown) of logits [B, C], [B]."""
        return openmax_known_probability(logits.double(), self.means, self.tails, self.alpha)


def fit_weibull(tail: FloatArray) -> tuple[float, float, float]:
    """Maximum-likelihood Weibull of the upper tail: shape, scale, origin.

    As in libMR (Scheirer et al. 2011) the tail is moved to start at 1, so that its smallest value has a finite
    logarithm: origin = min - 1. The shape k solves Σ x^k ln x / Σ x^k - 1/k = mean ln x, whose left side rises in k.
    """
    origin = float(tail.min()) - 1
    logs = np.log(tail - origin)
    low, high = 1e-3, STEEPEST
    for _ in range(100):
        shape = (low * high) ** 0.5
        weights = np.exp(shape * (logs - logs.max()))
        if weights @ logs / weights.sum() - 1 / shape < logs.mean():
            low = shape
        else:
            high = shape
    scale = np.exp(logs.max()) * np.mean(np.exp(shape * (logs - logs.max()))) ** (1 / shape)
    return shape, float(scale), origin


def fit_openmax(means: Tensor, distances: Sequence[FloatArray], tail_size: int = 20, alpha: int = 10) -> OpenMax:
    """OpenMax from the class means of training logits and each class's distances ‖logits - mean‖ to its own mean.

    The tail of a class is its `tail_size` largest distances. Classes with fewer than three distances, common in a long
    tail, take the tail of all classes' distances pooled, since a Weibull cannot be fitted to them.
    """
    if tail_size < FEWEST_IN_TAIL or alpha < 1:
        raise ValueError(f"OpenMax needs tail_size >= {FEWEST_IN_TAIL} and alpha >= 1, got {tail_size} and {alpha}.")
    pooled = np.concatenate(list(distances))
    if len(pooled) < FEWEST_IN_TAIL:
        raise ValueError(
            f"Only {len(pooled)} training images for OpenMax's tails; it needs {FEWEST_IN_TAIL} at least, more to be "
            "of use. Choose another open-set scorer."
        )
    common = fit_weibull(np.sort(pooled)[-tail_size:])
    fits = [fit_weibull(np.sort(d)[-tail_size:]) if len(d) >= FEWEST_IN_TAIL else common for d in distances]
    shape, scale, origin = (np.array(column) for column in zip(*fits, strict=True))
    return OpenMax(means, Weibull(shape, scale, origin), alpha)


def weibull_cdf(values: Tensor, tails: Weibull) -> Tensor:
    """P(X <= x) of values [B, C] under the tail of each class."""
    shape, scale, origin = (torch.as_tensor(p, device=values.device) for p in (tails.shape, tails.scale, tails.origin))
    return -torch.expm1(-(((values - origin).clamp(min=0) / scale) ** shape))


def openmax_known_probability(logits: Tensor, means: Tensor, tails: Weibull, alpha: int) -> Tensor:
    """1 - P(unknown), [B]; a class without training images (NaN mean) gives up nothing.

    v̂_c = v_c (1 - ω_c), v̂_unknown = Σ_c v_c ω_c, softmax over all C + 1.
    """
    distances = torch.cdist(logits, means, compute_mode="donot_use_mm_for_euclid_dist")
    place = logits.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    share = ((alpha - place) / alpha).clamp(min=0)
    omega = (share * weibull_cdf(distances, tails)).nan_to_num(nan=0.0)
    unknown = (logits * omega).sum(dim=1, keepdim=True)
    revised = torch.cat([logits * (1 - omega), unknown], dim=1)
    return 1 - revised.softmax(dim=1)[:, -1]
