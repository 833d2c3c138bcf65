"""Watching a forward pass for the parameters it uses, whatever modules it is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name

from .state import RandomState

Function = Callable[..., Any]


class Prefix:
    """What a forward pass computed before it first used a perturbed parameter.

    Nothing up to there depends on the perturbation, so a second pass may take the results instead of computing them
    again, and its gradients flow into the one graph of the first.
    """

    def __init__(self, start: RandomState) -> None:
        self.calls: list[tuple[Function, Any]] = []
        self.start = start
        self.random_state: RandomState | None = None
        self._versions: list[int] = []

    def close(self, state: RandomState) -> None:
        """The first use of a perturbed parameter comes next, with the generators in this state."""
        self.random_state = state
        self._versions = [tensor._version for tensor in self._tensors()]

    def is_intact(self) -> bool:
        """False when the rest of the pass has written into one of the results, which must then be computed again."""
        return self._versions == [tensor._version for tensor in self._tensors()]

    def _tensors(self) -> Iterator[Tensor]:
        for _, result in self.calls:
            yield from tensors_in(result)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors of nested lists, tuples and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)


class ParameterWatch(TorchFunctionMode):
    """Hands every torch function that receives a watched parameter to ``used``, and every other one to ``other``.

    Modules, whatever their class, reach their parameters through torch functions, so that no use goes unseen: the
    pass either knows what to do with it or refuses. Functions that tell a shape or a dtype count as ``other``.
    """

    def __init__(self, names: Mapping[int, str]) -> None:
        super().__init__()
        self._watched = names
        self.seen: set[str] = set()

    def used(self, func: Function, args: Any, kwargs: Any, names: list[str]) -> Any:
        raise NotImplementedError

    def other(self, func: Function, args: Any, kwargs: Any) -> Any:
        raise NotImplementedError

    def __torch_function__(self, func: Function, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        names = [self._watched[id(t)] for t in tensors_in((args, kwargs)) if id(t) in self._watched]
        if not names or _is_attribute(func):
            return self.other(func, args, kwargs)
        self.seen.update(names)
        return self.used(func, args, kwargs, names)


HARMLESS_ATTRIBUTES = {"shape", "dtype", "device", "ndim", "requires_grad", "is_cuda", "layout", "is_leaf", "grad_fn"}
HARMLESS_METHODS = {"size", "dim", "numel", "is_floating_point", "is_complex", "stride", "element_size", "__len__"}


def _is_attribute(func: Function) -> bool:
    """Whether a function of a tensor tells something about it that does not depend on its values."""
    name = getattr(func, "__name__", "")
    owner = getattr(getattr(func, "__self__", None), "__name__", "")
    return name in HARMLESS_METHODS or (name == "__get__" and owner in HARMLESS_ATTRIBUTES)


def function_name(func: Function) -> str:
    """A torch function as its documentation calls it."""
    return resolve_name(func) or getattr(func, "__name__", repr(func))
