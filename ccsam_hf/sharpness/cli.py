"""The command `sharpness`: flags are the fields of `CheckpointSharpness`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import HfArgumentParser

from .measure import CheckpointSharpness, measure_sharpness


def main(arguments: Sequence[str] | None = None) -> Path:
    """Measure as the arguments say, print and return the report's path."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    kind: Any = CheckpointSharpness
    parser = HfArgumentParser(kind, prog="sharpness", description=measure_sharpness.__doc__)
    (options,) = parser.parse_args_into_dataclasses(words)
    report = measure_sharpness(options)
    print(f"Report: {report}")
    return report
