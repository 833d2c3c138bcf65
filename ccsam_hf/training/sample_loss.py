"""The base loss of one batch, with everything but the logits fixed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..losses import LongTailedLoss, Target, logit_gradient
from .branches import BranchLoss


@dataclass(frozen=True)
class SampleLoss:
    """Logits [B, C] -> losses [B] for given targets and noise, so that the clean and the perturbed pass of a step
    share the draw of a loss with randomness of its own."""

    loss: LongTailedLoss
    target: Target
    draw: Tensor | None = None
    reduction: str = "sample"
    epoch: int = 0
    branches: BranchLoss | None = None

    def __call__(self, logits: Tensor) -> Tensor:
        return self.loss(logits, self.target, self.draw)

    def logit_gradient(self, logits: Tensor) -> Tensor:
        """δ_i = ∂l_i/∂logits_i, [B, C], detached."""
        return logit_gradient(self.loss, logits, self.target, self.draw)

    def reduce(self, losses: Tensor) -> Tensor:
        """One number from losses [B], with the loss's class weights."""
        return self.loss.reduce(losses, self.target, self.reduction, self.epoch)

    def mean(self, logits: Tensor) -> Tensor:
        """The reduced loss, with the regulariser of losses that couple the batch."""
        return self.regularised(self.reduce(self(logits)), logits)

    def regularised(self, reduced: Tensor, logits: Tensor) -> Tensor:
        """A reduced loss plus the regulariser and the branches' part, which are functions of the unperturbed logits."""
        if self.branches is not None:
            reduced = reduced + self.branches.correction(self, self.target, self.reduce(self(logits)))
        extra = self.loss.regulariser(logits, self.target)
        return reduced if extra is None else reduced + extra


def without_labels(inputs: Mapping[str, Any]) -> tuple[dict[str, Any], Tensor]:
    """A batch's model inputs and its labels [B]."""
    rest = dict(inputs)
    return rest, rest.pop("labels")
