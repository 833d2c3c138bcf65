"""CC-SAM's stage 2: adversarial features, weighted in progressively."""

from __future__ import annotations

from torch import Tensor

from ...losses import LongTailedLoss
from ..adversarial import (
    adversarial_features,
    class_adversarial_features,
    progressive_weight,
    rarity_weights,
    relative_scale,
)
from .base import Rule, RuleStep, checked_scale, refuse_weighting

SCHEDULES = ("progressive", "progressive_from_one")
DEFAULT_RELATIVE_SCALE = 0.1
RELEASED_SCALE = 1.0


class Adversarial(Rule):
    """L = (1 − t/T) L_S + (t/T) L_A, with L_A the loss at z + λ ∇_z l/‖∇_z l‖ (Eq. 12 and 14 of Zhou et al.)."""

    reference = "Zhou et al., CVPR 2023"
    options = (*Rule.options, "adversarial_scale", "relative_adversarial_scale", "adversarial_schedule")

    def check(self) -> None:
        args = self.args
        if args.adversarial_schedule not in SCHEDULES:
            raise ValueError(
                f"adversarial_schedule={args.adversarial_schedule!r} is not known; choose one of "
                f"{', '.join(SCHEDULES)}."
            )
        if args.adversarial_scale is not None and args.relative_adversarial_scale is not None:
            raise ValueError("Set adversarial_scale or relative_adversarial_scale, not both.")
        checked_scale("adversarial_scale", args.adversarial_scale)
        checked_scale("relative_adversarial_scale", args.relative_adversarial_scale)

    def objective(self, step: RuleStep) -> Tensor:
        clean, adversarial = step.loss.mean(step.logits), step.loss.mean(step.classify(self.features(step)))
        step.log(loss_clean=clean, loss_adversarial=adversarial)
        from_one = self.args.adversarial_schedule == "progressive_from_one"
        weight = progressive_weight(step.epoch, step.num_epochs, from_one)
        return (1 - weight) * clean + weight * adversarial

    def features(self, step: RuleStep) -> Tensor:
        """The adversarial features of a batch, [B, D]."""
        gradient = step.feature_gradient()
        features = step.features.detach().to(gradient.dtype)
        scale: Tensor | float | None = self.args.adversarial_scale
        if scale is None:
            share = self.args.relative_adversarial_scale
            scale = relative_scale(features, DEFAULT_RELATIVE_SCALE if share is None else share)
        return adversarial_features(features, gradient, scale)


class AdversarialReleased(Rule):
    """CC-SAM's stage 2 as its authors released it, which differs from the paper (github.com/zzpustc/CC-SAM).

    L = (1 − a) L_S + a · mean_i w_{y_i} l_i(z_i + λ w_{y_i} g_i), a = min(t/T, ``adversarial_cap``), t = 1..T, where g
    is the gradient over all features of the same class in the batch, divided by its norm, and w_c = ½ log(n_max/n_c +
    0.01). λ is ``adversarial_scale``, 1 in the release. There the backbone's BatchNorm statistics go on moving, which
    is ``shift_batch_norm``, and its normalisation uses those of the batch.
    """

    reference = "Zhou et al., CVPR 2023, release"
    options = (*Rule.options, "adversarial_scale", "adversarial_cap")

    def check(self) -> None:
        checked_scale("adversarial_scale", self.args.adversarial_scale)
        if not 0 <= self.args.adversarial_cap <= 1:
            raise ValueError(f"adversarial_cap must lie in 0..1, got {self.args.adversarial_cap}.")

    def prepare(self, loss: LongTailedLoss, class_counts: Tensor) -> None:
        refuse_weighting(self.args.rule, loss)
        self.weights = rarity_weights(class_counts)

    def objective(self, step: RuleStep) -> Tensor:
        losses = step.loss(step.classify(self.features(step)))
        weights = self.weights.to(losses.dtype)[step.loss.target.dominant]
        clean, adversarial = step.loss.mean(step.logits), (weights * losses).mean()
        step.log(loss_clean=clean, loss_adversarial=adversarial)
        weight = min(progressive_weight(step.epoch, step.num_epochs, from_one=True), self.args.adversarial_cap)
        return (1 - weight) * clean + weight * adversarial

    def features(self, step: RuleStep) -> Tensor:
        """The adversarial features of a batch, [B, D]."""
        gradient = step.feature_gradient()
        scale = RELEASED_SCALE if self.args.adversarial_scale is None else self.args.adversarial_scale
        lengths = scale * self.weights.to(gradient.dtype)
        features = step.features.detach().to(gradient.dtype)
        return class_adversarial_features(features, gradient, step.loss.target.dominant, lengths)

    def prior(self, sampling: str) -> str | None:
        return None
