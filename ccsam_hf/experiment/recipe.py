"""A recipe: the defaults of one benchmark, and the program that runs them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..hub import PushError
from .help import help_text
from .parsing import parse_settings
from .run import run_experiment

Sections = Mapping[str, Mapping[str, Any]]
# What the papers of the field share; Trainer's own defaults are AdamW and clipped gradients.
SGD: dict[str, Any] = {
    "optim": "sgd",
    "optim_args": "momentum=0.9",
    "max_grad_norm": 0.0,
    "decay_all_parameters": True,
}
LOGS: dict[str, Any] = {
    "logging_strategy": "epoch",
    "save_strategy": "epoch",
    "save_total_limit": 1,
    "report_to": "none",
}


@dataclass(frozen=True)
class Recipe:
    """title: one line for --help. defaults: sections benchmark, stage1, stage2, over which a YAML file and flags go."""

    title: str
    defaults: Sections

    def run(self, argv: Sequence[str] | None = None) -> dict[str, Any]:
        """Parse a command line and run it; {} after --help."""
        words = sys.argv[1:] if argv is None else list(argv)
        if "--help" in words or "-h" in words:
            print(help_text(self.title, self.defaults))
            return {}
        try:
            return run_experiment(parse_settings(self.defaults, words))
        except PushError as error:  # everything is trained and saved; the message has the command that retries
            sys.exit(str(error))


def main(defaults: Sections, argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the experiment of these defaults and a command line."""
    return Recipe("Both stages of CC-SAM", defaults).run(argv)
