"""Text, JSON and JSON lines on disk: UTF-8, written in one move, with a stated policy for NaN and infinities.

A process that is killed leaves the old file or the new one, never half of one.
"""

from __future__ import annotations

import json
import math
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor

NonFinite = Literal["refuse", "null", "keep"]


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary name with the same suffix in the same folder; it takes the place of `path` when the block ends.

    The folder is made where it is missing. After an exception the old file stays and the temporary one goes.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.stem}.{secrets.token_hex(4)}{target.suffix}")
    try:
        yield part
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in one move, as UTF-8 with "\\n" line ends on every system."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")


def write_json(
    path: str | Path,
    content: Any,
    *,
    non_finite: NonFinite = "refuse",
    indent: int | None = 2,
    sort_keys: bool = False,
) -> None:
    """Write a JSON file in one move.

    Args:
        path: the file; its folder is made where it is missing.
        content: what `plain` understands.
        non_finite: what becomes of NaN and infinities. "refuse" raises, "null" writes null, "keep" writes NaN and
            Infinity, which only some readers of JSON accept.
        indent: spaces for each level; None writes one line.
        sort_keys: write the keys in alphabetical order.

    Raises:
        ValueError: a number that is not finite, under "refuse"; the message names the file and the key.
    """
    write_text(path, _dumps(path, content, non_finite, indent=indent, sort_keys=sort_keys) + "\n")


def read_json(path: str | Path) -> Any:
    """The content of a JSON file.

    Raises:
        ValueError: the file is not JSON; the message names it.
    """
    return _loads(Path(path).read_text(encoding="utf-8"), str(path))


def write_jsonl(path: str | Path, rows: Iterable[Any], *, non_finite: NonFinite = "refuse") -> None:
    """Write all rows in one move, one JSON value on each line."""
    write_text(path, "".join(_dumps(path, row, non_finite) + "\n" for row in rows))


def append_jsonl(path: str | Path, row: Any, *, non_finite: NonFinite = "refuse") -> None:
    """Add one row at the end.

    The line break comes first, so that a line that was cut off before does not swallow this one.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with Path(path).open("a", encoding="utf-8", newline="\n") as file:
        file.write("\n" + _dumps(path, row, non_finite))


def read_jsonl(path: str | Path, *, skip_torn: bool = False) -> list[Any]:
    """The rows of a file of JSON lines; blank lines are skipped, and a missing file has no rows.

    Args:
        path: the file.
        skip_torn: also skip lines that are not JSON, which an interrupted `append_jsonl` leaves.

    Raises:
        ValueError: a line is not JSON; the message names the file and the line.
    """
    if not Path(path).exists():
        return []
    rows = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").split("\n"), start=1):
        if line.strip():
            try:
                rows.append(_loads(line, f"{path}, line {number},"))
            except ValueError:
                if not skip_torn:
                    raise
    return rows


def plain(value: Any, non_finite: NonFinite = "keep") -> Any:
    """Values as JSON has them.

    Tensors, arrays and tuples become lists, dataclasses dicts, paths text, and keys text. Under "null", numbers that
    are not finite become None.
    """
    if isinstance(value, Tensor):
        value = value.detach().cpu().tolist()
    elif isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    elif is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item, non_finite) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, non_finite) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value) and non_finite == "null":
        return None
    return value


def _dumps(path: str | Path, content: Any, non_finite: NonFinite, **options: Any) -> str:
    value = plain(content, non_finite)
    if non_finite == "refuse" and (where := _first_non_finite(value)) is not None:
        raise ValueError(f"{path} would hold a number that is not finite, at {where or 'the top'}: write null there.")
    return json.dumps(value, ensure_ascii=False, **options)


def _first_non_finite(value: Any) -> str | None:
    """The keys that lead to the first NaN or infinity, joined by dots; None where all numbers are finite."""
    if isinstance(value, float):
        return None if math.isfinite(value) else ""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        inner = _first_non_finite(item)
        if inner is not None:
            return f"{key}.{inner}" if inner else str(key)
    return None


def _loads(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where} is not valid JSON: {error}. Delete it or write it again.") from error
