"""Losses by name, as the command line and a YAML file choose them."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ccsam_hf.losses.base import LongTailedLoss
from ccsam_hf.losses.checks import checked_class_counts
from ccsam_hf.losses.class_weights import ClassWeighting
from ccsam_hf.losses.cosine import GCL, LDAM
from ccsam_hf.losses.cross_entropy import CrossEntropy
from ccsam_hf.losses.focal import Focal
from ccsam_hf.losses.lade import LADE
from ccsam_hf.losses.prior import BalancedSoftmax, LogitAdjustment, LogitMargin, VectorScaling
from ccsam_hf.losses.smoothing import LabelAwareSmoothing, LabelSmoothing

WEIGHTING_ARGUMENTS = ("weighting", "beta", "drw_epoch")


@dataclass(frozen=True)
class LossEntry:
    """One name: the class behind it, the arguments that the name implies, and where it comes from.

    Attributes:
        loss: the class.
        reference: the paper.
        preset: arguments that the name sets; they can be overridden, except that a required one must be given.
        required: arguments without a sensible default.
    """

    loss: type[LongTailedLoss]
    reference: str
    preset: Mapping[str, Any] = field(default_factory=dict)
    required: tuple[str, ...] = ()

    @property
    def arguments(self) -> dict[str, Any]:
        """The accepted arguments with their defaults (None for "not used")."""
        signature = inspect.signature(self.loss)
        own = {
            name: parameter.default
            for name, parameter in signature.parameters.items()
            if parameter.kind is parameter.KEYWORD_ONLY and name not in ("weighting", "dtype")
        }
        return own | dict.fromkeys(WEIGHTING_ARGUMENTS) | dict(self.preset)


_EFFECTIVE = {"weighting": "effective_number"}

LOSSES: dict[str, LossEntry] = {
    "cross_entropy": LossEntry(CrossEntropy, "softmax cross entropy"),
    "focal": LossEntry(Focal, "Lin et al., ICCV 2017"),
    "class_balanced": LossEntry(CrossEntropy, "Cui et al., CVPR 2019", _EFFECTIVE),
    "class_balanced_focal": LossEntry(Focal, "Cui et al., CVPR 2019", _EFFECTIVE),
    "ldam": LossEntry(LDAM, "Cao et al., NeurIPS 2019"),
    "ldam_drw": LossEntry(LDAM, "Cao et al., NeurIPS 2019", _EFFECTIVE, required=("drw_epoch",)),
    "balanced_softmax": LossEntry(BalancedSoftmax, "Ren et al., NeurIPS 2020"),
    "logit_adjustment": LossEntry(LogitAdjustment, "Menon et al., ICLR 2021"),
    "logit_margin": LossEntry(LogitMargin, "LDAM's margins (Cao et al., NeurIPS 2019) on free logits"),
    "vs": LossEntry(VectorScaling, "Kini et al., NeurIPS 2021"),
    "lade": LossEntry(LADE, "Hong et al., CVPR 2021"),
    "gcl": LossEntry(GCL, "Li et al., CVPR 2022"),
    "label_smoothing": LossEntry(LabelSmoothing, "Szegedy et al., CVPR 2016"),
    "label_aware_smoothing": LossEntry(LabelAwareSmoothing, "Zhong et al., CVPR 2021"),
}


def build_loss(
    name: str,
    class_counts: Tensor | Sequence[int] | None,
    num_classes: int,
    *,
    dtype: torch.dtype = torch.float32,
    **loss_args: Any,
) -> LongTailedLoss:
    """The loss behind a name, with every argument checked before training.

    Besides its own arguments each loss takes the class weights: `weighting` ("effective_number" or
    "inverse_frequency"), `beta` of the former, and `drw_epoch`, the first (0-based) epoch in which they count.

    Args:
        name: a key of `LOSSES`.
        class_counts: the training set's, one per class; None where neither the loss nor a weighting needs them.
        num_classes: C, at least 2.
        dtype: of the buffers.
        **loss_args: see `LOSSES[name].arguments`.

    Raises:
        ValueError: an unknown name or argument (with the choices), an argument out of range, counts that are
            missing, of another length, or zero where the formula divides by them.
    """
    entry = _entry(name)
    if num_classes < 2:
        raise ValueError(f"a classification loss needs at least 2 classes, got num_classes={num_classes}")
    accepted = entry.arguments
    unknown = sorted(set(loss_args) - set(accepted))
    if unknown:
        raise ValueError(
            f"loss {name!r} has no argument {', '.join(unknown)}; it accepts {', '.join(sorted(accepted))}"
        )
    missing = [key for key in entry.required if loss_args.get(key) is None]
    if missing:
        raise ValueError(f"loss {name!r} needs {', '.join(missing)}: the first epoch, from 0, that is re-weighted")
    given = dict(entry.preset) | loss_args
    weighting = _weighting(class_counts, num_classes, **{key: given.pop(key, None) for key in WEIGHTING_ARGUMENTS})
    return entry.loss(num_classes, class_counts, weighting=weighting, dtype=dtype, **given)


def _entry(name: str) -> LossEntry:
    if name not in LOSSES:
        raise ValueError(f"unknown loss {name!r}; choose from {', '.join(LOSSES)}")
    return LOSSES[name]


def _weighting(
    class_counts: Tensor | Sequence[int] | None,
    num_classes: int,
    weighting: str | None,
    beta: float | None,
    drw_epoch: int | None,
) -> ClassWeighting | None:
    if weighting is None:
        for option, value in (("beta", beta), ("drw_epoch", drw_epoch)):
            if value is not None:
                raise ValueError(
                    f"{option}={value} has no effect without class weights: add weighting='effective_number'"
                )
        return None
    counts = checked_class_counts(class_counts, num_classes, user=f"weighting={weighting!r}")
    return ClassWeighting(weighting, counts, beta, 0 if drw_epoch is None else drw_epoch)
