"""DisAlign: an adaptive calibration of the frozen classifier's logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...losses import LongTailedLoss
from ...losses.target import checked_class_counts
from ...models import AlignedLinear, Head
from .base import TRAINING_OPTIONS, Rule, RuleStep, refuse_weighting


def generalized_weights(class_counts: Tensor, exponent: float) -> Tensor:
    """w_c = C n_c^-ρ / Σ_k n_k^-ρ, float64 [C]: all 1 for ρ = 0, inverse frequencies for ρ = 1."""
    logs = -exponent * class_counts.double().log()
    return len(logs) * torch.softmax(logs, 0)


class DisAlign(Rule):
    """Trains the calibration of `AlignedLinear` on instance-balanced batches with the loss weighted by class.

    L = mean_i w_{y_i} l_i with the generalised re-weighting w_c ∝ n_c^-ρ, ρ = ``reweighting_exponent``; the linear
    layer is frozen. S. Zhang et al., CVPR 2021. The classifier stays: it is no linear layer.
    """

    reference = "Zhang et al., CVPR 2021"
    sampling = "instance"
    head_kind = "disalign"
    accepts = ("disalign",)
    options = (*TRAINING_OPTIONS, "reweighting_exponent")

    def check(self) -> None:
        if not 0 <= self.args.reweighting_exponent < float("inf"):
            raise ValueError(f"reweighting_exponent must be at least 0, got {self.args.reweighting_exponent}.")

    def prepare(self, loss: LongTailedLoss, class_counts: Tensor) -> None:
        refuse_weighting(self.args.rule, loss)
        counts = checked_class_counts(class_counts, len(class_counts), user=f"rule={self.args.rule!r}")
        self.weights = generalized_weights(counts, self.args.reweighting_exponent).to(class_counts.device)

    def trained(self, head: nn.Linear | Head) -> list[nn.Parameter]:
        assert isinstance(head, AlignedLinear)
        return [head.logit_scale, head.logit_bias, head.confidence_weight, head.confidence_bias]

    def objective(self, step: RuleStep) -> Tensor:
        losses = step.loss(step.logits)
        return (self.weights.to(losses.dtype)[step.loss.target.dominant] * losses).mean()

    def prior(self, sampling: str) -> str | None:
        return "uniform" if sampling == "instance" and self.args.reweighting_exponent == 1 else None
