"""Classifier retraining at perturbed weights: the flattening of stage 1, for the classifier alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...losses import LongTailedLoss
from ...sam import Groups, gaussian_logit_shift, shifted_logits, unit_logit_shift
from .base import Rule, RuleStep, checked_scale

DIRECTIONS = ("gradient", "random")


class FlatRetraining(Rule):
    """cRT with L = (1 − a) L(W, b) + a L(W + ε_W, b + ε_b), ‖ε‖ = ρ over weight and bias together.

    ρ is ``head_radius``, a ``head_flat_weight``. ``head_direction="gradient"`` moves along the batch mean's gradient:
    SAM (Foret et al., ICLR 2021), and for a below 1 the gradient-norm penalty (Zhao et al., ICML 2022); "random" is a
    Gaussian one, random model perturbation. In closed form on the logits, so that no weight is touched.
    """

    reference = "Kang et al., ICLR 2020; Foret et al., ICLR 2021"
    accepts = ("linear",)
    options = (*Rule.options, "head_radius", "head_flat_weight", "head_direction")

    def check(self) -> None:
        checked_scale("head_radius", self.args.head_radius)
        if not 0 <= self.args.head_flat_weight <= 1:
            raise ValueError(f"head_flat_weight must lie in 0..1, got {self.args.head_flat_weight}.")
        if self.args.head_direction not in DIRECTIONS:
            raise ValueError(
                f"head_direction={self.args.head_direction!r} is not known; choose {' or '.join(DIRECTIONS)}."
            )

    def prepare(self, loss: LongTailedLoss, class_counts: Tensor) -> None:
        self.total = class_counts.sum()

    def objective(self, step: RuleStep) -> Tensor:
        share = self.args.head_flat_weight
        clean = step.loss.reduce(step.loss(step.logits))
        perturbed = step.loss.reduce(step.loss(self.perturbed_logits(step)))
        step.log(loss_clean=clean, loss_perturbed=perturbed)
        joined = perturbed if share == 1 else (1 - share) * clean + share * perturbed
        return step.loss.regularised(joined, step.logits)

    def perturbed_logits(self, step: RuleStep) -> Tensor:
        """The logits [B, C] of the perturbed classifier."""
        assert isinstance(step.head, nn.Linear)
        features, has_bias = step.features.detach(), step.head.bias is not None
        groups = Groups(
            torch.zeros_like(step.loss.target.labels),
            self.total[None],
            torch.ones(1, dtype=torch.bool, device=features.device),
        )
        delta = step.loss.logit_gradient(step.logits)
        shift, norms = unit_logit_shift(features, delta, groups, has_bias)
        if self.args.head_direction == "random":
            generator = step.generator(features.device)
            shift = gaussian_logit_shift(features, step.logits.shape[1], groups, has_bias, generator)
        return shifted_logits(step.logits, shift, torch.full_like(norms, self.args.head_radius), groups)
