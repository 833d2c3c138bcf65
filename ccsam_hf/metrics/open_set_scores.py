"""How known does an image look? Scores [B] from logits [B, C] and features [B, D]; higher is more known.

None of them learns; those that compare with the classes take the class means of the training features.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ccsam_hf.metrics.calibration import from_fixed, to_fixed

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

# Name -> score of (logits, features, class means). OpenMax has a fit of its own and lives in `openmax`.
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
