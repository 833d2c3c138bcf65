"""What a rule of stage 2 is: which parameters of the classifier it trains, on which samples, for which objective."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from ...losses import LongTailedLoss
from ...models import Head
from ..arguments import ClassifierTrainingArguments
from ..sample_loss import SampleLoss

# Options that every rule reads which trains by steps.
TRAINING_OPTIONS = (
    "loss",
    "loss_args",
    "lr_milestones",
    "lr_decay",
    "decay_all_parameters",
    "sampling",
    "sampling_beta",
    "cache_features",
    "cached_views",
    "shift_batch_norm",
    "averaging_start",
    "spectral_norm",
)


class Log(Protocol):
    """Takes named scalars to be averaged until the next log."""

    def __call__(self, **values: Tensor) -> None: ...


@dataclass(frozen=True)
class RuleStep:
    """One micro-batch as a rule sees it.

    ``features`` z [B, D] are those of the frozen backbone, ``logits`` [B, C] the classifier's at z, with their graph.
    ``classify`` gives the logits of other features in the precision of the run. ``epoch`` counts from 0.
    ``generator`` is seeded by (seed, step, place of the micro-batch) on the device it is given.
    """

    loss: SampleLoss
    features: Tensor
    logits: Tensor
    head: nn.Linear | Head
    classify: Callable[[Tensor], Tensor]
    epoch: int
    num_epochs: int
    log: Log
    generator: Callable[[torch.device], torch.Generator]

    def feature_gradient(self) -> Tensor:
        """∇_z l_i [B, D], detached, in float32 or better."""
        delta = self.loss.logit_gradient(self.logits)
        with torch.autocast(delta.device.type, enabled=False), torch.enable_grad():
            leaf = self.features.detach().to(delta.dtype).requires_grad_(True)
            (gradient,) = torch.autograd.grad(self.head.forward(leaf), leaf, delta)
        return gradient


class Rule:
    """A way to retrain the classifier on the frozen backbone; by itself it is classifier retraining (cRT).

    A subclass says what differs: ``head_kind``, the classifier that takes the place of the linear one during the
    training; ``accepts``, the kinds of classifier it trains; ``options``, the arguments it reads (any other that was
    changed is refused); ``sampling``, its scheme of ``SAMPLING_SCHEMES`` unless the user names another.
    """

    reference: ClassVar[str] = "Kang et al., ICLR 2020"
    sampling: ClassVar[str] = "class"
    head_kind: ClassVar[str | None] = None
    accepts: ClassVar[tuple[str, ...]] = ("linear", "cosine")
    options: ClassVar[tuple[str, ...]] = (*TRAINING_OPTIONS, "reinitialize_classifier")

    def __init__(self, args: ClassifierTrainingArguments) -> None:
        self.args = args
        self.check()

    def check(self) -> None:
        """Raise ValueError for values of ``options`` that are out of range or do not combine."""

    def prepare(self, loss: LongTailedLoss, class_counts: Tensor) -> None:
        """Before the first step: refuse a base loss that does not go with the rule, keep what the steps need."""

    def trained(self, head: nn.Linear | Head) -> list[nn.Parameter]:
        """The parameters of the classifier that are trained; all others of the model are frozen."""
        return list(head.parameters())

    def objective(self, step: RuleStep) -> Tensor:
        """The loss of one micro-batch."""
        return step.loss.mean(step.logits)

    def prior(self, sampling: str) -> str | None:
        """The class prior that the logits presume after training with cross entropy; None where there is no telling."""
        return {"class": "uniform", "instance": "train"}.get(sampling)


class ClosedRule(Rule):
    """A rule without training: ``solve`` sets the linear classifier from what is there."""

    accepts = ("linear",)
    options: ClassVar[tuple[str, ...]] = ()

    def solve(self, head: nn.Linear, features: Callable[[], tuple[Tensor, Tensor]]) -> None:
        """Overwrite weight and bias. ``features`` computes z [N, D] and labels [N] of the training set."""
        raise NotImplementedError

    def prior(self, sampling: str) -> str | None:
        return None


def refuse_weighting(rule: str, loss: LongTailedLoss) -> None:
    if loss.weighting is not None:
        raise ValueError(f"rule={rule!r} weights the classes itself: choose a loss without weighting.")


def checked_scale(name: str, value: float | None) -> None:
    """Refuse a length that is negative or not finite; None is not set."""
    if value is not None and not 0 <= value < float("inf"):
        raise ValueError(f"{name} must be a finite number of at least 0, got {value}.")
