"""Which step carries out a plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor, nn

from ...models import ClassifierHead
from ...models.blocks import parameter_blocks
from ...sam import refuse_joined_statistics
from .classifier import classifier_step, in_full_precision
from .context import StepContext
from .lengths import GroupLengths
from .plan import PerturbationPlan
from .weights import CopiesStep, Directions, GroupwiseStep


class Engine(Protocol):
    """A way to compute a step's loss; one that ``runs_backward`` has added the gradients itself."""

    @property
    def runs_backward(self) -> bool: ...

    def loss(self, context: StepContext) -> Tensor: ...


def build_engine(
    plan: PerturbationPlan,
    lengths: GroupLengths,
    model: nn.Module,
    head: ClassifierHead,
    mixed_precision: str,
    checkpointing: bool,
) -> Engine:
    """The cheapest step that is exact for the plan: closed form, class copies, or one group after the other."""
    if plan.closed_form:
        return classifier_step(plan, lengths, head)
    in_full_precision(mixed_precision, f"perturbed_layers={plan.scope.text!r}")
    if checkpointing and plan.statistics == "clean":
        raise ValueError(
            "gradient_checkpointing repeats forward passes that class copies must see once: switch it off, or choose "
            "perturbed_statistics='batch'."
        )
    if plan.statistics == "clean":
        refuse_joined_statistics(model)
    blocks: Mapping[str, int] | None = parameter_blocks(model) if plan.scope.kind == "last" else None
    directions = Directions(plan, lengths, plan.scope.select(model, head.name, blocks))
    return CopiesStep(plan, directions) if plan.statistics == "clean" else GroupwiseStep(plan, directions)
