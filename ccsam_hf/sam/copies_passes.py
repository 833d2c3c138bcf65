"""The two forward passes of class copies, as rules for the torch functions they meet."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .copied_layers import CleanLayer, CopiedLayer, LinearMap
from .copied_norms import CleanBatchNorm, PerSample, fixed_batch_norm, moved_per_sample
from .group_gradients import GroupGradients, Perturbation
from .interception import Function, ParameterWatch, Prefix, function_name, tensors_in
from .known_functions import REFUSED, UnknownUse, handle
from .layout import GroupLayout
from .state import RandomState


class Tape:
    """What the clean pass leaves behind: batch statistics, and, while ``capturing``, gradients per group."""

    def __init__(self, layout: GroupLayout, parameters: dict[str, nn.Parameter], keep: bool) -> None:
        self.layout = layout
        self.parameters = parameters
        self.capturing = False
        self.statistics: list[tuple[Tensor, Tensor]] = []
        self.gradients = GroupGradients(layout, {name: p.shape for name, p in parameters.items()}, keep)
        self.names = {id(p): name for name, p in parameters.items()}
        self.device = next(iter(parameters.values())).device


class CopiesPass(ParameterWatch):
    """What both passes share: functions before the first perturbed parameter, known ones after it, refusals."""

    def __init__(self, tape: Tape, prefix: Prefix) -> None:
        super().__init__(tape.names)
        self.tape, self.prefix = tape, prefix
        self.batch_size = tape.layout.batch_size
        self.started = False

    def is_perturbed(self, parameter: Any) -> bool:
        return id(parameter) in self.tape.names

    def begin(self) -> None:
        """The first perturbed parameter is about to be used."""
        raise NotImplementedError

    def before(self, func: Function, args: Any, kwargs: Any) -> Any:
        """A function called before the first use of a perturbed parameter."""
        raise NotImplementedError

    def layer(self, op: LinearMap, x: Tensor, weight: Tensor) -> Tensor:
        """A linear map whose weight is perturbed."""
        raise NotImplementedError

    def per_sample(self, parameter: Tensor) -> Tensor:
        """A perturbed parameter as each sample sees it, [B, *shape]."""
        raise NotImplementedError

    def batch_norm(self, x: Tensor, settings: tuple[Any, ...], weight: Any, bias: Any) -> Tensor:
        """BatchNorm that plain training would give batch statistics."""
        raise NotImplementedError

    def used(self, func: Function, args: Any, kwargs: Any, names: list[str]) -> Any:
        if not self.started:
            self.started = True
            self.begin()
        if torch.is_autocast_enabled(self.tape.device.type):
            raise ValueError(
                "perturbed_statistics='clean' works in float32: half precision rounds perturbed weights back. Set "
                "bf16=False and fp16=False, or perturb the classifier only (perturbed_layers='classifier')."
            )
        return self._handled(func, args, kwargs, names)

    def other(self, func: Function, args: Any, kwargs: Any) -> Any:
        if not self.started:
            return self.before(func, args, kwargs)
        if func is F.batch_norm or func in REFUSED:
            return self._handled(func, args, kwargs, [])
        return func(*args, **kwargs)

    def _handled(self, func: Function, args: Any, kwargs: Any, names: list[str]) -> Any:
        try:
            return handle(self, func, args, kwargs)
        except UnknownUse as reason:
            _refuse(func, names, reason)


def _refuse(func: Function, names: list[str], reason: UnknownUse) -> NoReturn:
    subject = f"parameter {names[0]!r}" if names else "batch statistics"
    raise ValueError(
        f"perturbed_statistics='clean' cannot give every group its own {subject} in {function_name(func)}: {reason}. "
        "Leave the parameter out of perturbed_layers, or use perturbed_statistics='batch'."
    ) from reason


class CleanPass(CopiesPass):
    """The ordinary pass; records what came first, the batch statistics, and where gradients per group arise."""

    def begin(self) -> None:
        self.prefix.close(RandomState.capture(self.tape.device))

    def before(self, func: Function, args: Any, kwargs: Any) -> Any:
        result = func(*args, **kwargs)
        if any(True for _ in tensors_in(result)):
            self.prefix.calls.append((func, result))
        return result

    def layer(self, op: LinearMap, x: Tensor, weight: Tensor) -> Tensor:
        return CleanLayer.apply(self.tape, op, self.tape.names[id(weight)], x, weight)

    def per_sample(self, parameter: Tensor) -> Tensor:
        return PerSample.apply(self.tape, self.tape.names[id(parameter)], parameter)

    def batch_norm(self, x: Tensor, settings: tuple[Any, ...], weight: Any, bias: Any) -> Tensor:
        names = (self.tape.names.get(id(weight)), self.tape.names.get(id(bias)))
        return CleanBatchNorm.apply(self.tape, names, settings, x, weight, bias)


class PerturbedPass(CopiesPass):
    """The same pass with every group at its own weights; takes over what the clean pass computed before them."""

    def __init__(self, tape: Tape, prefix: Prefix, perturbation: Perturbation) -> None:
        super().__init__(tape, prefix)
        self.perturbation = perturbation
        self._calls = iter(prefix.calls) if prefix.is_intact() else None
        self._next = next(self._calls, None) if self._calls else None
        self._statistics = iter(tape.statistics)

    def begin(self) -> None:
        if self._next is not None:
            _refuse_other_path(self._next[0], "a perturbed parameter")
        if self._calls is not None:
            assert self.prefix.random_state is not None
            self.prefix.random_state.restore()

    def before(self, func: Function, args: Any, kwargs: Any) -> Any:
        if self._next is not None and func == self._next[0]:
            result = self._next[1]
            assert self._calls is not None
            self._next = next(self._calls, None)
            return result
        result = func(*args, **kwargs)
        if self._calls is not None and any(True for _ in tensors_in(result)):
            _refuse_other_path(self._next[0] if self._next else None, function_name(func))
        return result

    def layer(self, op: LinearMap, x: Tensor, weight: Tensor) -> Tensor:
        name, constant = self.tape.names[id(weight)], weight.detach()
        return CopiedLayer.apply(self.tape.layout, op, lambda k: self.perturbation.moved(name, k, constant), x, weight)

    def per_sample(self, parameter: Tensor) -> Tensor:
        return moved_per_sample(self.perturbation, self.tape.names[id(parameter)], parameter)

    def batch_norm(self, x: Tensor, settings: tuple[Any, ...], weight: Any, bias: Any) -> Tensor:
        mean, inverse = next(self._statistics)
        weight, bias = (self.per_sample(p) if self.is_perturbed(p) else p for p in (weight, bias))
        return fixed_batch_norm(x, weight, bias, mean, inverse)


def _refuse_other_path(expected: Function | None, found: str) -> NoReturn:
    raise RuntimeError(
        f"The perturbed forward pass met {found} where the clean one called "
        f"{function_name(expected) if expected else 'a perturbed parameter'}; the model must compute the same "
        "functions in both. Use perturbed_statistics='batch' for a model that chooses its path at random."
    )
