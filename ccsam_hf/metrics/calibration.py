"""Does a confidence of 0.8 mean right in 80 % of the cases? Additive histograms behind ECE and reliability diagrams.

Binning, everywhere: M bins of equal width on [0, 1], closed on the right, ((m-1)/M, m/M] (Guo et al. 2017), confidence
0 in the first. Sums are kept as whole multiples of 2^-32, so that adding histograms of any number of processes in any
order gives identical figures; a figure is within 2^-32 of the exact sum.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .inputs import FloatArray

FIXED_POINT = 2.0**32
DEFAULT_BINS = 15


def to_fixed(values: Tensor) -> Tensor:
    """Values as int64 multiples of 2^-32, whose sums do not depend on their order."""
    return (values.double() * FIXED_POINT).round().long()


def from_fixed(values: Tensor) -> Tensor:
    return values.double() / FIXED_POINT


@dataclass(frozen=True)
class ConfidenceBins:
    """Number of confidences, of hits among them, and fixed-point sum of confidences: int64 [rows, bins] each."""

    count: Tensor
    hits: Tensor
    confidence: Tensor

    def __add__(self, other: "ConfidenceBins") -> "ConfidenceBins":
        return ConfidenceBins(self.count + other.count, self.hits + other.hits, self.confidence + other.confidence)

    def pooled(self, rows: Tensor | None = None) -> "ConfidenceBins":
        """The chosen rows (boolean mask, all by default) taken together, [1, bins]."""
        parts = (self.count, self.hits, self.confidence)
        chosen = parts if rows is None else tuple(part[rows.to(part.device)] for part in parts)
        return ConfidenceBins(*(part.sum(0, keepdim=True) for part in chosen))

    def gaps(self) -> FloatArray:
        """|hits - sum of confidences| of each bin, float64 [rows, bins]."""
        return (self.hits.double() - from_fixed(self.confidence)).abs().cpu().numpy()

    def curve(self) -> dict[str, list[float | int | None]]:
        """The reliability diagram of all rows together: edges, counts, mean confidence and accuracy of each bin."""
        total = self.pooled()
        count, hits = total.count[0].tolist(), total.hits[0].tolist()
        confidence = from_fixed(total.confidence[0]).tolist()
        return {
            "upper_edge": torch.linspace(0, 1, len(count) + 1, dtype=torch.double)[1:].tolist(),
            "count": count,
            "confidence": [c / n if n else None for c, n in zip(confidence, count, strict=True)],
            "accuracy": [h / n if n else None for h, n in zip(hits, count, strict=True)],
        }


def bin_confidences(
    confidence: Tensor, hits: Tensor, rows: Tensor | None = None, num_rows: int = 1, bins: int = DEFAULT_BINS
) -> ConfidenceBins:
    """Histogram of confidences [N] in [0, 1] and whether each was a hit [N], one row for each value of `rows` [N]."""
    if bins < 1:
        raise ValueError(f"bins is {bins}; calibration needs at least one bin (15 is usual).")
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.double, device=confidence.device)
    cell = torch.bucketize(confidence.double(), edges[1:-1])
    if rows is not None:
        cell = cell + rows * bins
    sums = [torch.ones_like(cell), hits.long(), to_fixed(confidence)]
    totals = [torch.zeros(num_rows * bins, dtype=torch.long, device=cell.device).index_add_(0, cell, s) for s in sums]
    return ConfidenceBins(*(total.view(num_rows, bins) for total in totals))


def bin_probabilities(probabilities: Tensor, labels: Tensor, bins: int = DEFAULT_BINS) -> ConfidenceBins:
    """Histogram of all class probabilities [B, C], one row a class: the material of the classwise ECE."""
    batch, classes = probabilities.shape
    rows = torch.arange(classes, device=labels.device).expand(batch, classes)
    hits = rows == labels[:, None]
    return bin_confidences(probabilities.flatten(), hits.flatten(), rows.flatten(), classes, bins)


def expected_calibration_error(histogram: ConfidenceBins, rows: Tensor | None = None) -> float | None:
    """ECE = Σ_m (n_m / N) |accuracy_m - confidence_m| (Guo et al. 2017), of the rows together; None without images.

    Example:
        >>> histogram = bin_confidences(torch.tensor([0.9, 0.8]), torch.tensor([True, False]))
        >>> round(expected_calibration_error(histogram), 4)
        0.45
    """
    chosen = histogram.pooled(rows)
    images = int(chosen.count.sum())
    return float(chosen.gaps().sum() / images) if images else None


def classwise_calibration_error(histogram: ConfidenceBins, rows: Tensor | None = None) -> float | None:
    """Classwise ECE = 1/C Σ_c Σ_m (n_cm / N) |frequency of c - mean probability of c| (Kull et al. 2019).

    `histogram` from `bin_probabilities`; `rows` restricts the mean to a group of classes, each still over all images.
    """
    images = int(histogram.count[0].sum())
    errors = histogram.gaps().sum(axis=1) / max(images, 1)
    chosen = errors if rows is None else errors[rows.cpu().numpy()]
    return float(np.mean(chosen)) if images and chosen.size else None
