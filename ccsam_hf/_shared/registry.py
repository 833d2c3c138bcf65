"""Names for interchangeable parts: losses, rules, perturbations, benchmarks and augmentations are registered alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar

from .choices import nearest

Part = TypeVar("Part")


class Registry(Mapping[str, Part], Generic[Part]):
    """Parts by name, in the order of registration. Reads like a dict; `register` adds, `find` refuses unknown names.

    Args:
        kind: what the parts are, in the singular, for messages ("loss").
        parts: the package's own.
    """

    def __init__(self, kind: str, parts: Mapping[str, Part] | None = None) -> None:
        self.kind = kind
        self._parts: dict[str, Part] = dict(parts or {})

    def __getitem__(self, name: str) -> Part:
        return self._parts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    def register(self, name: str) -> Callable[[Part], Part]:
        """`register(name)(part)` adds a part under a new name and returns it, so that it also serves as a decorator.

        Raises:
            ValueError: no name, or one that another part has.
        """
        if not isinstance(name, str) or not name:
            raise ValueError(f"A {self.kind} is registered under a name, not {name!r}.")

        def add(part: Part) -> Part:
            if self._parts.get(name, part) is not part:
                raise ValueError(f"The {self.kind} {name!r} is registered already; choose another name.")
            self._parts[name] = part
            return part

        return add

    def find(self, name: str) -> Part:
        """The part of that name; ValueError with the nearest names and all of them."""
        if name in self._parts:
            return self._parts[name]
        near = nearest(name, self._parts)
        meant = f"did you mean {near!r}? " if near else ""
        raise ValueError(f"Unknown {self.kind} {name!r}: {meant}Choose one of {', '.join(self._parts)}.")
