"""Finished pieces of a part that is under way: one point of a landscape, one noisy network, one group's Hessian."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

# keep(name, compute) is compute()'s value, or the one that an earlier, interrupted call has left under this name.
Keep = Callable[[str, Callable[[], Any]], Any]


def compute_anew(name: str, compute: Callable[[], Any]) -> Any:
    """Keep nothing."""
    return compute()


def under(prefix: str, keep: Keep) -> Keep:
    """``keep`` with names of its own, for a computation that runs several times within one part."""
    return lambda name, compute: keep(f"{prefix}, {name}", compute)


@dataclass
class PieceFile:
    """A `Keep` that adds each value to a file of JSON lines as soon as it is there.

    Values are made of lists, dicts with string keys, numbers and None; numbers come back bit for bit, infinities and
    NaN too. A line that was cut off is computed again. ``taken`` counts the values that came from the file. Threads
    may share it.
    """

    path: Path
    taken: int = field(default=0, init=False)
    _lock: Lock = field(default_factory=Lock, init=False, repr=False)

    def __call__(self, name: str, compute: Callable[[], Any]) -> Any:
        with self._lock:
            if name in self._known:
                self.taken += 1
                return self._known[name]
        value = compute()
        # The line break comes first, so that a line cut off before it does not swallow this one.
        with self._lock, self.path.open("a", encoding="utf-8") as file:
            file.write("\n" + json.dumps([name, value]))
        return value

    @cached_property
    def _known(self) -> dict[str, Any]:
        if not self.path.exists():
            return {}
        lines = self.path.read_text(encoding="utf-8").splitlines()
        return dict(entry for entry in map(_entry, lines) if entry is not None)

    def remove(self) -> None:
        """Delete the file: the part is complete."""
        self.path.unlink(missing_ok=True)


def _entry(line: str) -> Any:
    """[name, value] of a whole line, None of an empty or torn one: no part of a JSON list is JSON by itself."""
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None
