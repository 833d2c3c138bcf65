"""Perturbations of any weights, by class copies (two passes) or one group after the other (1 + G passes)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from ...losses import Target
from ...sam import (
    ClassCopies,
    GroupGradients,
    GroupLayout,
    Groups,
    RandomState,
    adaptive_metric,
    adaptive_norms,
    adaptive_step,
    batch_gradients,
    clean_weights,
    focal_weights,
    gaussian_step,
    gradient_step,
    layerwise_step,
    perturbed_passes,
)
from ..sample_loss import SampleLoss
from .context import StepContext, combined
from .lengths import GroupLengths
from .plan import PerturbationPlan

Parameters = dict[str, nn.Parameter]


class Directions:
    """From the gradients of a batch's groups to the perturbation of their weights."""

    def __init__(self, plan: PerturbationPlan, lengths: GroupLengths, parameters: Parameters) -> None:
        self.plan, self.lengths, self.parameters = plan, lengths, parameters
        self.number = sum(p.numel() for p in parameters.values())

    def __call__(
        self,
        context: StepContext,
        gradients: GroupGradients,
        groups: Groups,
        labels: Tensor,
        sizes: Tensor | None = None,
    ) -> Any:
        plan = self.plan
        if plan.adaptive:
            metric = adaptive_metric(self.parameters)
            lengths = self._lengths(adaptive_norms(gradients, metric), groups, labels, sizes)
            return adaptive_step(gradients, metric, lengths)
        if plan.layerwise:
            return self._layerwise(gradients, groups, labels)
        lengths = self._lengths(gradients.total_norms(), groups, labels, sizes)
        if plan.direction == "random":
            values = {name: p.detach() for name, p in self.parameters.items()}
            return gaussian_step(gradients.layout, values, lengths, context.generator(labels.device))
        return gradient_step(gradients, lengths)

    def _lengths(self, norms: Tensor, groups: Groups, labels: Tensor, sizes: Tensor | None) -> Tensor:
        return self.lengths(norms, groups, labels, weight_norm(self.parameters), self.number, sizes=sizes)

    def _layerwise(self, gradients: GroupGradients, groups: Groups, labels: Tensor) -> Any:
        rule = self._layer_rule(groups)
        layout = gradients.layout
        moved = [rule(name, layout.spread(norm)).square() for name, norm in gradients.norms().items()]
        self.lengths.record(torch.stack(moved).sum(0).sqrt() / weight_norm(self.parameters), groups, labels)
        return layerwise_step(gradients, rule)

    def _layer_rule(self, groups: Groups) -> Callable[[str, Tensor], Tensor]:
        mean, factor = self.lengths.running.mean, self.lengths.factor

        def rule(name: str, norms: Tensor) -> Tensor:
            p = self.parameters[name]
            lengths = self.plan.rule.lengths(norms, groups.counts, p.detach().norm(), p.numel(), mean)
            return torch.where(groups.active, lengths, 0) * factor

        return rule


def weight_norm(parameters: Parameters) -> Tensor:
    """‖w‖ over all perturbed parameters together."""
    return torch.linalg.vector_norm(torch.stack([p.detach().norm() for p in parameters.values()]))


class CopiesStep:
    """``perturbed_statistics="clean"``: all groups at their own weights in one more pass."""

    runs_backward = False

    def __init__(self, plan: PerturbationPlan, directions: Directions) -> None:
        self.plan, self.directions = plan, directions

    def loss(self, context: StepContext) -> Tensor:
        groups = context.groups(self.plan.partition)
        layout = GroupLayout.of(groups, self.plan.max_copies)
        inputs, target = layout.sorted_batch(context.inputs), context.target.select(layout.order)
        groups = Groups(groups.index[layout.order], groups.counts, groups.active)
        copies = ClassCopies(context.model, self.directions.parameters, layout, self.plan.max_copies)
        with context.no_sync(), copies.clean():
            logits = context.forward(inputs)
            loss = context.loss_of(logits, target)
            losses = loss(logits)
        keep = self.plan.flat_weight < 1 or loss.loss.couples_batch
        gradients = copies.gradients(losses, retain_graph=keep)
        with copies.perturbed(self.directions(context, gradients, groups, target.dominant)):
            perturbed = loss.reduce(loss(context.forward(inputs)))
        clean = loss.reduce(losses)
        context.report(loss_clean=clean, loss_perturbed=perturbed)
        return loss.regularised(combined(clean, perturbed, self.plan.flat_weight), logits)


class GroupwiseStep:
    """``perturbed_statistics="batch"``: the whole batch at each group's weights in turn; runs its own backwards."""

    runs_backward = True

    def __init__(self, plan: PerturbationPlan, directions: Directions) -> None:
        self.plan, self.directions = plan, directions

    def loss(self, context: StepContext) -> Tensor:
        plan, parameters = self.plan, self.directions.parameters
        joined = plan.sync
        groups = context.groups(plan.partition)
        layout = GroupLayout.one_by_one(groups, absent_too=context.processes > 1)
        state = RandomState.capture(context.target.labels.device)
        with context.no_sync():
            logits = context.forward(context.inputs)
            loss = context.loss_of(logits, context.target)
            losses = loss(logits)
            weights = context.sample_weights(loss, joined, losses.dtype)
            if plan.partition.tail_weight != 1:
                weights = torch.where(groups.active[groups.index], plan.partition.tail_weight, 1.0) * weights
            direction, rest, flat = self._weights(context.target, context.class_counts, weights, groups)
            stays = self._clean_loss_stays(loss)
            reduce = context.reduce if joined else None
            gradients = batch_gradients(
                losses, groups, layout, parameters, direction, reduce=reduce, retain_graph=stays
            )
            clean = (weights * losses).detach().sum()
            remaining = loss.regularised((rest * losses).sum(), logits) if stays else torch.zeros_like(clean)
            if stays and len(layout.present):
                context.backward(remaining)
        if stays and not len(layout.present):
            context.backward(remaining)
        sizes = context.reduce(groups.sizes()) if joined else None
        perturbation = self.directions(context, gradients, groups, context.target.dominant, sizes)
        perturbed = torch.zeros_like(clean)
        for run in perturbed_passes(context.model, parameters, groups, perturbation, flat, state):
            with run.applied(), nullcontext() if run.last else context.no_sync():
                part = (run.weights * loss(context.forward(context.inputs))).sum()
                context.backward(part)
            perturbed += part.detach()
        context.report(loss_clean=clean, loss_perturbed=perturbed)
        return remaining.detach() + perturbed

    def _clean_loss_stays(self, loss: SampleLoss) -> bool:
        """Whether anything of the clean loss is left to train on; without it a backward pass is saved."""
        plan = self.plan
        everything = plan.flat_weight == 1 and plan.partition.kind != "head_tail" and plan.focal is None
        return not everything or loss.loss.couples_batch

    def _weights(
        self, target: Target, class_counts: Tensor, weights: Tensor, groups: Groups
    ) -> tuple[Tensor | None, Tensor, Tensor]:
        """Weights [B] of the losses that give the direction (None: group means), stay clean, and are perturbed."""
        plan = self.plan
        if plan.focal is not None:
            focal = focal_weights(target.dominant, class_counts, plan.focal.gamma, plan.focal.sharpness_weight, weights)
            return tuple(w.to(weights.dtype) for w in (focal.direction, focal.clean, focal.perturbed))  # type: ignore[return-value]
        perturbed = groups.active[groups.index].to(weights.dtype)
        return None, clean_weights(weights, groups, plan.flat_weight), plan.flat_weight * weights * perturbed
