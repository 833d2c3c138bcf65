"""The command `evaluate`: flags are the fields of `CheckpointEvaluation`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from accelerate import Accelerator
from transformers import HfArgumentParser

from .evaluate import CheckpointEvaluation, evaluate_checkpoint, evaluation_text
from .results import Evaluation


def main(arguments: Sequence[str] | None = None) -> Evaluation:
    """Evaluate as the arguments say; the main process prints the table and writes the files."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    kind: Any = CheckpointEvaluation
    parser = HfArgumentParser(kind, prog="evaluate", description=evaluate_checkpoint.__doc__)
    (options,) = parser.parse_args_into_dataclasses(words)
    accelerator = Accelerator()
    evaluation = evaluate_checkpoint(options, accelerator)
    if accelerator.is_main_process:
        print(evaluation_text(evaluation, options))
    return evaluation
