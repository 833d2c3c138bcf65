"""Finished measures, and finished values of a measure under way, on disk: an interrupted analysis goes on there."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn

# keep(name, compute) is compute()'s value, or the one that an earlier, interrupted call has left under this name.
Keep = Callable[[str, Callable[[], Any]], Any]


def compute_anew(name: str, compute: Callable[[], Any]) -> Any:
    """Keep nothing."""
    return compute()


def under(prefix: str, keep: Keep) -> Keep:
    """``keep`` with names of its own, for a computation that runs several times within one measure."""
    return lambda name, compute: keep(f"{prefix}, {name}", compute)


@dataclass
class PartialResults:
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
        """Delete the file: the measure is complete."""
        self.path.unlink(missing_ok=True)


def _entry(line: str) -> Any:
    """[name, value] of a whole line, None of an empty or torn one: no beginning of a JSON list is JSON by itself."""
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None


@dataclass(frozen=True)
class ResultFolder:
    """JSON files in ``folder``, one for each measure, named by a digest of everything that it depends on.

    ``files`` collects where the measures asked for lie.
    """

    folder: Path
    depends_on: dict[str, Any]
    files: dict[str, Path] = field(default_factory=dict)

    def get(self, name: str, settings: dict[str, Any], compute: Callable[[Keep], dict[str, Any]]) -> dict[str, Any]:
        """The stored result of ``name`` under these settings, or ``compute(keep)``'s, stored. Non-finite becomes null.

        Values that ``compute`` hands to ``keep`` outlive a call that is cut off, and are deleted when it is complete.
        """
        record = {"measure": name, **self.depends_on, **settings}
        key = hashlib.sha256(json.dumps(record, sort_keys=True, default=str).encode()).hexdigest()[:12]
        path = self.folder / f"{name}-{key}.json"
        self.files[name] = path
        if path.exists():
            return json.loads(path.read_text(encoding="utf-8"))["result"]
        self.folder.mkdir(parents=True, exist_ok=True)
        values, begin = PartialResults(path.with_suffix(".values")), time.perf_counter()
        result = plain(compute(values))
        spent = {"seconds": round(time.perf_counter() - begin, 2), "values_of_earlier_calls": values.taken}
        content = {"settings": plain(record), **spent, "result": result}
        # Renaming is atomic: a measure that was cut off half-written is never taken for a finished one.
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(content, allow_nan=False), encoding="utf-8")
        partial.rename(path)
        values.remove()
        return result


def plain(value: Any) -> Any:
    """Tensors as lists, tuples as lists, non-finite numbers as None."""
    if isinstance(value, Tensor):
        return plain(value.tolist())
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def fingerprint(tensors: dict[str, Tensor]) -> str:
    """Digest of names, shapes, types and contents."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def model_fingerprint(model: nn.Module) -> str:
    """Digest of a model's parameters and buffers."""
    return fingerprint({**dict(model.named_parameters()), **dict(model.named_buffers())})
