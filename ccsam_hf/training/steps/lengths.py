"""From the norms of a batch's group gradients to the lengths of their perturbations, with all that is remembered."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...sam import Groups, mean_lengths, unbiased_norms, unit_lengths
from ..meters import PerturbationMeter
from ..running import RunningUnit
from .plan import PerturbationPlan

Reduce = Callable[[Tensor], Tensor]


class GroupLengths:
    """‖ε_g‖ of each group [G] by the plan's rule, schedule and estimators; records r_c and what ū is made of."""

    def __init__(
        self, plan: PerturbationPlan, running: RunningUnit, meter: PerturbationMeter, num_classes: int
    ) -> None:
        self.plan, self.running, self.meter, self.num_classes = plan, running, meter, num_classes
        self.factor = 1.0

    def __call__(
        self,
        grad_norm: Tensor,
        groups: Groups,
        labels: Tensor,
        weight_norm: Tensor,
        num_parameters: int,
        sample_squares: Tensor | None = None,
        sizes: Tensor | None = None,
    ) -> Tensor:
        """‖ε_g‖ [G] from ‖g_g‖ [G], dominant labels [B], ‖w‖ and k; Σ‖g_i‖² [G] for unbiased norms.

        ``sizes`` [G] are those of the joined batch where gradients are, by default those of this process.
        """
        plan = self.plan
        sizes = groups.sizes() if sizes is None else sizes
        # An overflow in half precision moves nothing and must not be remembered: the scaler leaves such a step out.
        finite = grad_norm.isfinite()
        if plan.gradient_norm == "unbiased":
            assert sample_squares is not None
            grad_norm = self._unbiased(grad_norm, sample_squares, sizes)
        mean = self.running.mean
        lengths = plan.rule.lengths(grad_norm, groups.counts, weight_norm, num_parameters, mean)
        lengths = torch.where(groups.active, lengths, 0)
        if plan.shares_mean:
            unit = plan.rule.unit(grad_norm, groups.counts)
            self.running.add(plan.rule.clipped_unit(unit, mean), sizes * (groups.active & finite))
        if plan.length == "unit":
            lengths = unit_lengths(lengths)
        elif plan.length == "mean":
            lengths = mean_lengths(lengths, sizes)
        lengths = lengths * self.factor
        self.record(lengths / weight_norm, groups, labels)
        return lengths

    def _unbiased(self, grad_norm: Tensor, sample_squares: Tensor, sizes: Tensor) -> Tensor:
        self.running.norms, smooth = unbiased_norms(
            self.running.norm_state(len(sizes)), grad_norm, sample_squares, sizes
        )
        return smooth

    def record(self, ratio: Tensor, groups: Groups, labels: Tensor) -> None:
        """r of each group [G] as the mean r_c of each class present, for the logs."""
        per_sample = ratio.float()[groups.index]
        zeros = torch.zeros(self.num_classes, device=labels.device)
        present = zeros.index_add(0, labels, torch.ones_like(per_sample))
        cap = self.plan.rule.max_perturbation_ratio
        capped = (per_sample >= cap * self.factor * (1 - 1e-6)) & (per_sample > 0) if cap else per_sample < 0
        mean, share = (
            zeros.index_add(0, labels, value.float()) / present.clamp(min=1) for value in (per_sample, capped)
        )
        self.meter.add(mean, present > 0, share > 0.5)
