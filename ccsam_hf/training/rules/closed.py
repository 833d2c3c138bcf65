"""Rules without training: τ-normalisation and nearest class mean (Kang et al., ICLR 2020)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import ClosedRule

METRICS = ("euclidean", "cosine")


def tau_normalized(weight: Tensor, tau: float) -> Tensor:
    """W_c / ‖W_c‖^τ, [C, D]: W itself for τ = 0, directions alone for τ = 1. A zero row stays zero."""
    norm = weight.norm(dim=1, keepdim=True)
    return weight / torch.where(norm > 0, norm, 1) ** tau


def class_means(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """μ_c, the mean of the features [N, D] of class c, float64 [C, D]; NaN for a class without a sample."""
    sums = torch.zeros(num_classes, features.shape[1], dtype=torch.float64, device=features.device)
    sums.index_add_(0, labels, features.double())
    return sums / torch.bincount(labels, minlength=num_classes)[:, None]


def nearest_mean_classifier(means: Tensor, metric: str) -> tuple[Tensor, Tensor]:
    """Weight [C, D] and bias [C] whose largest logit is the class of the nearest mean.

    "euclidean": ⟨μ_c, z⟩ − ½‖μ_c‖² = −½‖z − μ_c‖² + ½‖z‖². "cosine": ⟨μ_c/‖μ_c‖, z⟩ = ‖z‖ cos(μ_c, z).
    """
    if metric == "cosine":
        return F.normalize(means, dim=1), means.new_zeros(len(means))
    return means, -means.square().sum(1) / 2


class TauNormalization(ClosedRule):
    """W_c ← W_c/‖W_c‖^τ with ``tau``. The paper drops the bias; with ``keep_bias`` τ = 0 changes nothing."""

    options = ("tau", "keep_bias")

    def check(self) -> None:
        if not 0 <= self.args.tau < float("inf"):
            raise ValueError(f"tau must be a finite number of at least 0, got {self.args.tau}.")

    @torch.no_grad()
    def solve(self, head: nn.Linear, features: Callable[[], tuple[Tensor, Tensor]]) -> None:
        head.weight.copy_(tau_normalized(head.weight, self.args.tau))
        if head.bias is not None and not self.args.keep_bias:
            head.bias.zero_()


class NearestClassMean(ClosedRule):
    """The class whose mean feature is nearest (NCM), as a linear layer.

    The means are those of the training images as evaluation sees them. ``ncm_metric`` is the distance; of the paper's
    two, Euclidean distance to *normalised* means has the order of the cosine. Centring and normalising the features
    first, as the release can do, is no linear function of them and is left out.
    """

    options = ("ncm_metric",)

    def check(self) -> None:
        if self.args.ncm_metric not in METRICS:
            raise ValueError(f"ncm_metric={self.args.ncm_metric!r} is not known; choose {' or '.join(METRICS)}.")

    @torch.no_grad()
    def solve(self, head: nn.Linear, features: Callable[[], tuple[Tensor, Tensor]]) -> None:
        if head.bias is None and self.args.ncm_metric == "euclidean":
            raise ValueError("The classifier has no bias, which Euclidean distances need: set ncm_metric='cosine'.")
        means = class_means(*features(), head.out_features)
        absent = means.isnan().any(1).nonzero().flatten().tolist()
        if absent:
            raise ValueError(f"Classes {absent[:10]} have no training image, hence no mean: give each one.")
        weight, bias = nearest_mean_classifier(means, self.args.ncm_metric)
        head.weight.copy_(weight)
        if head.bias is not None:
            head.bias.copy_(bias)
