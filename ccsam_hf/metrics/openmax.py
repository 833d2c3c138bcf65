"""OpenMax (Bendale & Boult 2016): logits give up mass to "unknown" the further they lie from their class's mean."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ccsam_hf.metrics.inputs import FloatArray

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
