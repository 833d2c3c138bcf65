"""The classifier's perturbation in closed form: one forward and one backward pass for any number of groups."""

from __future__ import annotations

from torch import Tensor

from ...models import ClassifierHead
from ...models.heads import CosineClassifier
from ...sam import (
    Groups,
    JoinedBatch,
    gaussian_logit_shift,
    linear_sample_squares,
    linear_weight_norm,
    shifted_logits,
    unit_cosine_shift,
    unit_logit_shift,
)
from ..sample_loss import SampleLoss
from .context import StepContext, combined
from .lengths import GroupLengths
from .plan import PerturbationPlan


class ClassifierStep:
    """Loss of a step whose groups each see their own moved linear classifier."""

    runs_backward = False

    def __init__(self, plan: PerturbationPlan, lengths: GroupLengths, head: ClassifierHead) -> None:
        self.plan, self.lengths, self.head = plan, lengths, head

    def loss(self, context: StepContext) -> Tensor:
        logits = context.forward(context.inputs)
        loss = context.loss_of(logits, context.target)
        moved = self.perturbed_logits(context, loss, logits)
        clean, perturbed = loss(logits), loss(moved)
        if self.plan.sync:
            weights = context.sample_weights(loss, True, clean.dtype)
            clean, perturbed = (weights * clean).sum(), (weights * perturbed).sum()
        else:
            clean, perturbed = loss.reduce(clean), loss.reduce(perturbed)
        context.report(
            loss_clean=clean, loss_perturbed=perturbed, logit_shift=lowered(logits, moved, context.target.dominant)
        )
        return loss.regularised(combined(clean, perturbed, self.plan.flat_weight), logits)

    def perturbed_logits(self, context: StepContext, loss: SampleLoss, logits: Tensor) -> Tensor:
        """The logits of each sample under its group's classifier, [B, C]."""
        plan, head, features = self.plan, self.head.module, context.features()
        groups = context.groups(plan.partition)
        delta = loss.logit_gradient(logits)
        joined = self._joined(context, features, delta, groups) if plan.sync else None
        shift, grad_norm = unit_logit_shift(
            features, delta, groups, head.bias is not None, plan.feature_gradient, joined
        )
        lengths = self._lengths(context, groups, grad_norm, features, delta, joined)
        if plan.direction == "random":
            generator = context.generator(features.device)
            rows = features if plan.feature_gradient == "perturbed" else features.detach()
            shift = gaussian_logit_shift(rows, logits.shape[1], groups, head.bias is not None, generator)
        return shifted_logits(logits, shift, lengths, groups)

    def _lengths(
        self,
        context: StepContext,
        groups: Groups,
        grad_norm: Tensor,
        features: Tensor,
        delta: Tensor,
        joined: JoinedBatch | None,
    ) -> Tensor:
        head = self.head.module
        squares = None
        if self.plan.gradient_norm == "unbiased":
            squares = linear_sample_squares(features, delta, groups, head.bias is not None)
            squares = squares if joined is None else joined.reduce(squares)
        weight_norm, number = linear_weight_norm(head.weight, head.bias)
        sizes = None if joined is None else joined.groups.sizes()
        labels = context.target.dominant
        return self.lengths(grad_norm, groups, labels, weight_norm, number, squares, sizes)

    def _joined(self, context: StepContext, features: Tensor, delta: Tensor, groups: Groups) -> JoinedBatch:
        everyone = Groups(context.gather(groups.index), groups.counts, groups.active)
        z = context.gather(features.detach().float().contiguous())
        return JoinedBatch(z, context.gather(delta), everyone, context.reduce)


def lowered(logits: Tensor, moved: Tensor, labels: Tensor) -> Tensor:
    """How far the perturbation lowers the true class's logit, the mean over samples."""
    before, after = (x.detach().float().gather(1, labels[:, None]) for x in (logits, moved))
    return (before - after).mean()


class CosineStep(ClassifierStep):
    """The same for a cosine classifier with a fixed scale."""

    def __init__(self, plan: PerturbationPlan, lengths: GroupLengths, head: ClassifierHead) -> None:
        super().__init__(plan, lengths, head)
        assert isinstance(head.module, CosineClassifier)
        if head.module.learned_scale:
            raise ValueError("The closed form of a cosine classifier needs a fixed scale: set learned_scale=False.")
        for name, value, idle in (
            ("direction", plan.direction, "gradient"),
            ("gradient_norm", plan.gradient_norm, "batch"),
            ("perturbation_sync", plan.sync, False),
        ):
            if value != idle:
                raise ValueError(f"{name}={value!r} is not available for a cosine classifier: leave it out.")
        self.scale = head.module.initial_scale

    def perturbed_logits(self, context: StepContext, loss: SampleLoss, logits: Tensor) -> Tensor:
        groups, weight = context.groups(self.plan.partition), self.head.module.weight
        delta = loss.logit_gradient(logits)
        shift = unit_cosine_shift(context.features(), weight, delta, groups, self.scale, self.plan.feature_gradient)
        weight_norm, number = linear_weight_norm(weight, None)
        lengths = self.lengths(shift.grad_norm, groups, context.target.dominant, weight_norm, number)
        return shift.logits(lengths, groups)


def classifier_step(plan: PerturbationPlan, lengths: GroupLengths, head: ClassifierHead) -> ClassifierStep:
    """The closed form for the kind of classifier at hand."""
    if head.kind not in CLOSED_FORMS:
        raise ValueError(
            f"No closed form is known for a {head.kind!r} classifier: perturb one group after the other, with "
            f"perturbed_layers='names:{head.name}.*' and perturbed_statistics='batch'."
        )
    return CLOSED_FORMS[head.kind](plan, lengths, head)


CLOSED_FORMS = {"linear": ClassifierStep, "cosine": CosineStep}


def in_full_precision(mixed_precision: str, what: str) -> None:
    """Refuse half precision where weights themselves are moved: rounding them destroys small perturbations."""
    if mixed_precision != "no":
        raise ValueError(
            f"{what} moves weights, which {mixed_precision} would round: the perturbation that arrives is not the one "
            "meant. Train in float32, or choose perturbed_layers='classifier', whose closed form has no such loss."
        )
