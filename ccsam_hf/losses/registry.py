"""Losses by name, as the command line and a YAML file choose them, or the user's own."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from .._shared.registry import Registry
from .base import LongTailedLoss
from .margin import GCL, LDAM, LogitMargin
from .prior import LADE, BalancedSoftmax, LogitAdjustment, VectorScaling
from .reduction import ClassWeighting
from .softmax import CrossEntropy, Focal, LabelAwareSmoothing, LabelSmoothing
from .target import checked_class_counts

AnyLoss = TypeVar("AnyLoss", bound=type[LongTailedLoss])
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

_OWN: dict[str, LossEntry] = {
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
LOSSES: Registry[LossEntry] = Registry("loss", _OWN)


def list_losses() -> list[str]:
    """All names that `loss=` accepts, the registered ones included, in the order of registration.

    Example:
        >>> list_losses()[:2]
        ['cross_entropy', 'focal']
    """
    return list(LOSSES)


def register_loss(
    name: str, *, reference: str = "", preset: Mapping[str, Any] | None = None, required: Sequence[str] = ()
) -> Callable[[AnyLoss], AnyLoss]:
    """Decorator that gives a `LongTailedLoss` class a name, under which `loss=name` finds it everywhere.

    The class takes (num_classes, class_counts, *, weighting, dtype) and its own options as keywords; `loss_args` are
    checked against them. Importing the file with the class is enough.

    Args:
        name: not yet taken.
        reference: where the loss comes from, for model cards; by default the class's own name.
        preset: arguments that the name implies.
        required: arguments that have to be given.

    Raises:
        ValueError: a taken name, something else than a `LongTailedLoss` class, or one that cannot be built this way.

    Example:
        >>> from ccsam_hf.losses import CrossEntropy
        >>> @register_loss("sharp_cross_entropy")
        ... class SharpCrossEntropy(CrossEntropy):
        ...     def per_label(self, logits, labels, draw=None):
        ...         return super().per_label(2 * logits, labels)
        >>> type(build_loss("sharp_cross_entropy", [5, 3], 2)).__name__
        'SharpCrossEntropy'
    """

    def add(loss: AnyLoss) -> AnyLoss:
        _check_class(loss)
        entry = LossEntry(loss, reference or f"{loss.__module__}.{loss.__qualname__}", preset or {}, tuple(required))
        known = LOSSES.get(name)
        LOSSES.register(name)(known if known is not None and known == entry else entry)
        return loss

    return add


def _check_class(loss: object) -> None:
    if not (isinstance(loss, type) and issubclass(loss, LongTailedLoss)):
        raise ValueError(f"A loss is a class derived from ccsam_hf.losses.LongTailedLoss, not {loss!r}.")
    try:
        inspect.signature(loss).bind(2, [1, 1], weighting=None, dtype=torch.float32)
    except TypeError as error:
        raise ValueError(
            f"{loss.__name__} cannot be built from (num_classes, class_counts, weighting=, dtype=): {error}. Take "
            "these in __init__, pass them on to super().__init__, and give its own options defaults."
        ) from error


def build_loss(
    name: str | LongTailedLoss | type[LongTailedLoss],
    class_counts: Tensor | Sequence[int] | None,
    num_classes: int,
    *,
    dtype: torch.dtype = torch.float32,
    **loss_args: Any,
) -> LongTailedLoss:
    """The loss behind a name, or the user's own, with every argument checked before training.

    Besides its own arguments each loss takes the class weights: `weighting` ("effective_number" or
    "inverse_frequency"), `beta` of the former, and `drw_epoch`, the first (0-based) epoch in which they count.

    Args:
        name: one of `list_losses()`; or a `LongTailedLoss` class, built like a registered one; or a `LongTailedLoss`
            object, which is handed back as it is and takes no `loss_args`.
        class_counts: the training set's, one per class; None where neither the loss nor a weighting needs them.
        num_classes: C, at least 2.
        dtype: of the buffers.
        **loss_args: see `LOSSES[name].arguments`.

    Raises:
        ValueError: an unknown name or argument (with the choices), an argument out of range, counts that are
            missing, of another length, or zero where the formula divides by them; an object made for other
            classes or counts.

    Example:
        >>> build_loss("logit_adjustment", [90, 10], 2, tau=0.5).tau
        0.5
    """
    if isinstance(name, LongTailedLoss):
        return _checked_object(name, class_counts, num_classes, loss_args)
    if isinstance(name, str):
        entry = LOSSES.find(name)
    else:
        _check_class(name)
        entry, name = LossEntry(name, name.__qualname__), name.__name__
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


def _checked_object(
    loss: LongTailedLoss,
    class_counts: Tensor | Sequence[int] | None,
    num_classes: int,
    loss_args: Mapping[str, Any],
) -> LongTailedLoss:
    """The user's object, refused where it does not fit the data."""
    name = type(loss).__name__
    if loss_args:
        raise ValueError(f"loss_args {', '.join(loss_args)} have no effect on a loss object: set them in {name}(...)")
    if loss.num_classes != num_classes:
        raise ValueError(f"the loss object {name} has num_classes={loss.num_classes}, the data {num_classes} classes")
    if loss.class_counts is not None and class_counts is not None:
        counts = checked_class_counts(class_counts, num_classes, user=name, allow_zero=True)
        if not torch.equal(counts, loss.class_counts.cpu()):
            raise ValueError(
                f"the loss object {name} has other class_counts than the training set: build it from those"
            )
    return loss


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
