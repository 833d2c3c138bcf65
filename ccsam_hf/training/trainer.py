"""Stage 1 of CC-SAM: backbone and classifier under class-conditional weight perturbations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..losses import REDUCTIONS, Target
from ..perturbation import RadiusRule, class_groups, linear_weight_norm, shifted_logits, unit_logit_shift
from .arguments import CCSAMTrainingArguments, refuse_without_effect
from .base import LongTailedTrainer
from .meters import PerturbationMeter
from .mixup import mixup
from .running import RunningUnit
from .sample_loss import SampleLoss, without_labels

PERTURBATION_OPTIONS = [
    "perturbed_layers",
    "radius_scale",
    "relative_radius",
    "radius_momentum",
    "max_perturbation_ratio",
    "flat_weight",
    "feature_gradient",
]
DEFAULT_RELATIVE_RADIUS = 0.01
# Trained on instance-balanced batches, these losses leave logits of the training or of a uniform prior.
PRIOR_OF_LOSS = {
    "cross_entropy": "train",
    "focal": "train",
    "label_smoothing": "train",
    "balanced_softmax": "uniform",
    "lade": "uniform",
}


@dataclass(frozen=True)
class _Choices:
    """The choices of one run, resolved."""

    rule: RadiusRule
    feature_gradient: Any

    @property
    def shares_mean(self) -> bool:
        return self.rule.relative_radius is not None


class CCSAMTrainer(LongTailedTrainer):
    """Trains (1 − a) · L + a · L_perturbed, where the loss of each class sees weights moved along its own gradient.

    L_perturbed averages l_i(w + ε_{y_i}) with ε_c = √k ρ_c g_c/‖g_c‖ (Eq. 8 and 9 of Zhou et al., CVPR 2023) on the
    classifier. The perturbed logits of all classes are computed in closed form: one forward and one backward pass
    whatever the number of classes. With ``flat_weight`` 0 or a radius of 0 the run is plain training, bit for bit.

    The logged ``loss`` is the objective; ``loss_clean`` and ``loss_perturbed`` are its parts, ``radius_many`` etc. the
    mean ‖ε_c‖/‖w‖ of the classes, see `PerturbationMeter`. ``evaluate`` reports the unperturbed loss.
    """

    arguments_class = CCSAMTrainingArguments

    def __init__(self, *trainer_arguments: Any, **trainer_options: Any) -> None:
        super().__init__(*trainer_arguments, **trainer_options)
        self.add_callback(RunningUnit())

    @property
    def running_unit(self) -> RunningUnit:
        # Looked up, because Trainer replaces the callback when it restores callback states from a checkpoint.
        return next(c for c in self.callback_handler.callbacks if isinstance(c, RunningUnit))

    def resolve(self) -> None:
        choices = _resolve_choices(self.args)
        super().resolve()
        if choices is not None and self.head.kind != "linear":
            raise ValueError(
                f"perturbation={self.args.perturbation!r} on the classifier is written for a linear layer, not for a "
                f"{self.head.kind!r} classifier: set perturbation='none'."
            )
        self._choices = choices
        self._check_loss()
        self.running_unit.reset(self.args.radius_momentum, self.args.device)
        self.radii = PerturbationMeter(self._known_counts(), self.args.shots())

    def training_prior(self) -> str | None:
        if self.args.class_reduction != "sample" or self.loss.weighting is not None:
            return None
        return PRIOR_OF_LOSS.get(self.args.loss)

    def _check_loss(self) -> None:
        if self.args.class_reduction not in REDUCTIONS:
            raise ValueError(
                f"unknown class_reduction {self.args.class_reduction!r}; choose from {', '.join(REDUCTIONS)}"
            )
        if self.args.mixup_alpha > 0 and not self.loss.supports_mixed_targets:
            raise ValueError(f"loss={self.args.loss!r} has no mixed form: set mixup_alpha to 0 or choose another loss.")

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Mapping[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        inputs, labels = without_labels(inputs)
        if not model.training:
            value, outputs = self.evaluation_loss(model, inputs, labels)
            return (value, outputs) if return_outputs else value
        inputs, target = self.mix(inputs, labels)
        _, logits = self.forward(model, inputs)
        loss = self.sample_loss(logits, target, self.args.class_reduction)
        if self._choices is None:
            return loss.mean(logits)
        return self.combine(loss, logits, self.perturb(loss, logits))

    def mix(self, inputs: dict[str, Any], labels: Tensor) -> tuple[dict[str, Any], Target]:
        """Mixup where asked for, drawn by (seed, step, place of the micro-batch in the step)."""
        if self.args.mixup_alpha == 0:
            return inputs, Target(labels)
        images = inputs[self.model.main_input_name]
        if not images.is_floating_point():
            raise ValueError("mixup_alpha needs floating-point inputs such as images; set it to 0 for token ids.")
        mixed, target = mixup(images, labels, self.args.mixup_alpha, self.draw_key())
        return {**inputs, self.model.main_input_name: mixed}, target

    def perturb(self, loss: SampleLoss, logits: Tensor) -> Tensor:
        """The logits of each sample under its class's perturbed classifier, [B, C]."""
        choices, head = self._choices, self.head.module
        assert choices is not None
        groups = class_groups(loss.target.dominant, self._known_counts())
        delta = loss.logit_gradient(logits)
        shift, grad_norm = unit_logit_shift(
            self.features, delta, groups, head.bias is not None, choices.feature_gradient
        )
        weight_norm, number = linear_weight_norm(head.weight, head.bias)
        mean = self.running_unit.mean
        lengths = choices.rule.lengths(grad_norm, groups.counts, weight_norm, number, mean)
        if choices.shares_mean:
            unit = choices.rule.unit(grad_norm, groups.counts)
            self.running_unit.add(choices.rule.clipped_unit(unit, mean), groups.sizes())
        ratio = lengths / weight_norm
        cap = choices.rule.max_perturbation_ratio
        capped = ratio >= cap * (1 - 1e-6) if cap is not None else torch.zeros_like(ratio, dtype=torch.bool)
        self.radii.add(ratio, groups.present(), capped)
        return shifted_logits(logits, shift, lengths, groups)

    def combine(self, loss: SampleLoss, logits: Tensor, perturbed_logits: Tensor) -> Tensor:
        """(1 − a) · L + a · L_perturbed, and a regulariser that couples the batch, which is not perturbed."""
        clean, perturbed = loss.reduce(loss(logits)), loss.reduce(loss(perturbed_logits))
        self.scalars.add(loss_clean=clean, loss_perturbed=perturbed)
        weight = self.args.flat_weight
        combined = perturbed if weight == 1 else (1 - weight) * clean + weight * perturbed
        extra = self.loss.regulariser(logits, loss.target)
        return combined if extra is None else combined + extra

    def end_accumulation(self) -> None:
        if self._choices is not None and self._choices.shares_mean:
            self.running_unit.fold(self.sum_over_processes)

    def step_report(self) -> dict[str, float]:
        return {**super().step_report(), **self.radii.report(self.sum_over_processes)}


def _resolve_choices(args: CCSAMTrainingArguments) -> _Choices | None:
    """The perturbation the arguments name, or None where it is plain training (none, radius 0 or flat_weight 0)."""
    if args.perturbation == "none":
        refuse_without_effect(args, PERTURBATION_OPTIONS, "with perturbation='none'")
        return None
    if args.perturbation != "ccsam":
        raise ValueError(f"perturbation={args.perturbation!r} is not known; choose ccsam or none.")
    if args.perturbed_layers != "classifier":
        raise ValueError(f"perturbed_layers={args.perturbed_layers!r} is not known; choose classifier.")
    if args.feature_gradient not in ("perturbed", "clean"):
        raise ValueError(f"feature_gradient={args.feature_gradient!r} is not known; choose perturbed or clean.")
    relative = args.relative_radius
    if relative is None and args.radius_scale is None:
        relative = DEFAULT_RELATIVE_RADIUS
    if relative is None:
        refuse_without_effect(args, ["radius_momentum"], "without relative_radius")
    rule = RadiusRule(
        radius_scale=args.radius_scale,
        relative_radius=relative,
        max_perturbation_ratio=args.max_perturbation_ratio,
    )
    return None if rule.is_zero or args.flat_weight == 0 else _Choices(rule, args.feature_gradient)
