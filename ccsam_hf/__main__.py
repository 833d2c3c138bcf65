"""``python -m ccsam_hf COMMAND``: the package's programs where there is no clone with recipes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

# Imported on demand: listing the commands must not load every library.
COMMANDS: dict[str, tuple[str, str]] = {
    "digits": ("ccsam_hf.experiment.digits:main", "train both stages on the embedded digits, no download"),
    "cifar": ("ccsam_hf.experiment.cifar:main", "train both stages on CIFAR-10-LT or CIFAR-100-LT"),
    "imagenet": ("ccsam_hf.experiment.imagenet:main", "train both stages on ImageNet-LT"),
    "places": ("ccsam_hf.experiment.places:main", "train both stages on Places-LT"),
    "inaturalist": ("ccsam_hf.experiment.inaturalist:main", "train both stages on iNaturalist 2018"),
    "folder": ("ccsam_hf.experiment.folder:main", "train both stages on your own images"),
    "methods": ("ccsam_hf.methods:main", "the methods of the paper's tables, for --method NAME"),
    "benchmark": ("ccsam_hf.study.benchmark:main", "methods x benchmarks x seeds from a YAML grid, as one table"),
    "evaluate": ("ccsam_hf.evaluation.cli:main", "every figure of a checkpoint on a benchmark"),
    "sharpness": ("ccsam_hf.sharpness.cli:main", "how flat checkpoints are"),
    "push": ("ccsam_hf.hub.push:push_command", "publish a model folder to the Hub"),
    "cards": ("ccsam_hf.hub.push:cards_command", "render stored model cards again"),
}
TRACEBACK = "CCSAM_HF_TRACEBACK"


def usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {command:<{width}}  {purpose}" for command, (_, purpose) in COMMANDS.items()]
    return (
        "usage: python -m ccsam_hf COMMAND [OPTIONS]\n\n" + "\n".join(lines) + "\n\n"
        f"COMMAND --help lists its options; {TRACEBACK}=1 in the environment shows where an error was raised."
    )


def run_command(name: str, argv: Sequence[str] | None = None) -> None:
    """One command with its words; what is wrong with them or the data goes to stderr in one line, exit code 2."""
    module, function = COMMANDS[name][0].split(":")
    program: Callable[[list[str]], object] = getattr(import_module(module), function)
    try:
        program(sys.argv[1:] if argv is None else list(argv))
    except ValueError as error:
        if os.environ.get(TRACEBACK):
            raise
        print(f"ccsam_hf {name}: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in COMMANDS:
        run_command(name, sys.argv[2:])
        return
    print(usage(), file=sys.stdout if name in ("", "-h", "--help") else sys.stderr)
    if name not in ("", "-h", "--help"):
        print(f"\nccsam_hf: unknown command {name!r}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
