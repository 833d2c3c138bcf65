"""Finished parts and pieces of parts on disk, so that an interrupted analysis goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ccsam_hf.sharpness.pieces import Keep, PieceFile


@dataclass(frozen=True)
class PartStore:
    """JSON files in ``folder``, one for each part, named by a digest of everything that the part depends on.

    ``files`` collects where the parts asked for lie."""

    folder: Path
    depends_on: dict[str, Any]
    files: dict[str, Path] = field(default_factory=dict)

    def get(self, name: str, settings: dict[str, Any], compute: Callable[[Keep], dict[str, Any]]) -> dict[str, Any]:
        """The stored result of ``name`` under these settings, or ``compute(keep)``'s, stored. Non-finite becomes null.

        Pieces that ``compute`` hands to ``keep`` outlive a call that is cut off, and are deleted with the part's end.
        """
        record = {"part": name, **self.depends_on, **settings}
        key = hashlib.sha256(json.dumps(record, sort_keys=True, default=str).encode()).hexdigest()[:12]
        path = self.folder / f"{name}-{key}.json"
        self.files[name] = path
        if path.exists():
            return json.loads(path.read_text())["result"]
        self.folder.mkdir(parents=True, exist_ok=True)
        pieces, begin = PieceFile(path.with_suffix(".pieces")), time.perf_counter()
        result = plain(compute(pieces))
        spent = {"seconds": round(time.perf_counter() - begin, 2), "pieces_of_earlier_calls": pieces.taken}
        # Renaming is atomic: a part that was cut off half-written is never taken for a finished one.
        partial = path.with_suffix(".part")
        content = {"settings": plain(record), **spent, "result": result}
        partial.write_text(json.dumps(content, allow_nan=False))
        partial.rename(path)
        pieces.remove()
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
