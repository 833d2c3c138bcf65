"""The command line: ``ccsam-hf COMMAND`` and ``python -m ccsam_hf COMMAND``.

A command loads its libraries when it runs; what is wrong with its words or with the data goes to stderr in one line.
"""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

# Where each command's program stands, and what it does.
COMMANDS: dict[str, tuple[str, str]] = {
    "train": ("ccsam_hf.cli:train_command", "train both stages on a benchmark by its name, or on a folder of images"),
    "evaluate": ("ccsam_hf.evaluation.cli:main", "every figure of a checkpoint on a benchmark or your own images"),
    "predict": ("ccsam_hf.cli:predict_command", "label all images below a folder, as a CSV file"),
    "sharpness": ("ccsam_hf.sharpness.cli:main", "how flat checkpoints are"),
    "benchmark": ("ccsam_hf.study.benchmark:main", "methods x benchmarks x seeds from a YAML grid, as one table"),
    "list": ("ccsam_hf.cli:list_command", "names of losses, rules, perturbations, methods, benchmarks, augmentations"),
    "methods": ("ccsam_hf.methods:main", "the methods of the paper's tables with their sources, for --method NAME"),
    "push": ("ccsam_hf.hub.push:push_command", "publish a model folder to the Hub"),
    "cards": ("ccsam_hf.hub.push:cards_command", "render stored model cards again"),
    "digits": ("ccsam_hf.experiment.digits:main", "short for train digits-lt (embedded digits, no download)"),
    "cifar": ("ccsam_hf.experiment.cifar:main", "short for train cifar100-lt"),
    "imagenet": ("ccsam_hf.experiment.imagenet:main", "short for train imagenet-lt"),
    "places": ("ccsam_hf.experiment.places:main", "short for train places-lt"),
    "inaturalist": ("ccsam_hf.experiment.inaturalist:main", "short for train inat2018"),
    "folder": ("ccsam_hf.experiment.folder:main", "short for train FOLDER, given as --data_dir FOLDER"),
}
# The short command behind `train BENCHMARK`, and the flags that the name stands for.
BENCHMARKS: dict[str, tuple[str, list[str]]] = {
    "digits-lt": ("digits", []),
    "cifar10-lt": ("cifar", ["--benchmark", "cifar10-lt"]),
    "cifar100-lt": ("cifar", []),
    "imagenet-lt": ("imagenet", []),
    "places-lt": ("places", []),
    "inat2018": ("inaturalist", []),
}
# The registry whose names `list KIND` prints.
LISTS = {
    "losses": "ccsam_hf.losses:LOSSES",
    "rules": "ccsam_hf.training:RULES",
    "perturbations": "ccsam_hf.training:PRESETS",
    "methods": "ccsam_hf.methods:METHODS",
    "benchmarks": "ccsam_hf.data:BENCHMARKS",
    "augmentations": "ccsam_hf.data.augment:AUGMENTATIONS",
}
TRACEBACK = "CCSAM_HF_TRACEBACK"
HELP = ("", "-h", "--help")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {command:<{width}}  {purpose}" for command, (_, purpose) in COMMANDS.items()]
    return (
        "usage: ccsam-hf COMMAND [OPTIONS]    (or python -m ccsam_hf COMMAND [OPTIONS])\n\n" + "\n".join(lines) + "\n\n"
        f"COMMAND --help lists its options; --version; {TRACEBACK}=1 in the environment shows where an error arose."
    )


def run_command(name: str, argv: Sequence[str] | None = None) -> None:
    """One command with its words; what is wrong with them or the data goes to stderr in one line, exit code 2."""
    program = _named(COMMANDS[name][0])
    try:
        program(sys.argv[1:] if argv is None else list(argv))
    except ValueError as error:
        if os.environ.get(TRACEBACK):
            raise
        print(f"ccsam_hf {name}: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


def main(argv: Sequence[str] | None = None) -> None:
    """`ccsam-hf WORDS`; the list of commands without a word, exit code 2 for an unknown one."""
    words = sys.argv[1:] if argv is None else list(argv)
    name = words[0] if words else ""
    if name in COMMANDS:
        run_command(name, words[1:])
    elif name in HELP:
        print(usage())
    elif name == "--version":
        print(f"ccsam-hf {version('ccsam_hf')}")
    else:
        print(f"{usage()}\n\nccsam_hf: unknown command {name!r}{_meant(name, COMMANDS)}", file=sys.stderr)
        sys.exit(2)


def train_command(words: Sequence[str]) -> None:
    """`train BENCHMARK [FLAGS]` or `train FOLDER [FLAGS]`.

    Raises:
        ValueError: neither a benchmark's name nor a folder; a flag that names the data a second time.
    """
    name, flags = (words[0], list(words[1:])) if words else ("", [])
    if name in HELP:
        print(f"usage: ccsam-hf train BENCHMARK|FOLDER [FLAGS]\n\nBENCHMARK: {', '.join(BENCHMARKS)}.")
        print("FOLDER holds train/ and val/, or one folder for each class.\ntrain BENCHMARK --help lists the flags.")
        return
    if name in BENCHMARKS:
        command, own = BENCHMARKS[name]
        taken = "--benchmark"
    elif Path(name).is_dir():
        command, own, taken = "folder", ["--data_dir", name], "--data_dir"
    else:
        known = ", ".join(BENCHMARKS)
        raise ValueError(f"{name!r} is no benchmark and no folder{_meant(name, BENCHMARKS)} Benchmarks: {known}.")
    if any(flag.partition("=")[0].replace("-", "_") == taken.replace("-", "_") for flag in flags):
        raise ValueError(f"{taken}: the data is {name!r} already; leave the flag out.")
    _named(COMMANDS[command][0])([*own, *flags])


def predict_command(words: Sequence[str]) -> None:
    """`predict MODEL FOLDER`: one CSV row of best labels for each image below the folder."""
    parser = _Parser(prog="ccsam-hf predict", description=predict_command.__doc__, allow_abbrev=False)
    parser.add_argument("model", help="folder or Hub id of a trained model")
    parser.add_argument("folder", help="images, at any depth")
    parser.add_argument("--out", default="predictions.csv", help="the CSV file (%(default)s)")
    parser.add_argument("--top_k", type=int, default=5, help="labels for each image (%(default)s)")
    parser.add_argument("--batch_size", type=int, default=32, help="images at a time (%(default)s)")
    given, rest = parser.parse_known_args(list(words))
    if rest:
        raise ValueError(f"unknown word {rest[0]!r}{_meant(rest[0], ('--out', '--top_k', '--batch_size'))}")
    for name in ("top_k", "batch_size"):
        if getattr(given, name) < 1:
            raise ValueError(f"--{name} {getattr(given, name)}: at least 1 is needed.")
    predict = _named("ccsam_hf.inference:predict_folder")
    print(predict(given.model, given.folder, given.out, top_k=given.top_k, batch_size=given.batch_size))


def list_command(words: Sequence[str]) -> None:
    """`list KIND`: the names of one registry, one a line; ValueError for an unknown kind."""
    kind = words[0] if words else ""
    if kind in HELP:
        print(f"usage: ccsam-hf list {'|'.join(LISTS)}")
        return
    if kind not in LISTS or len(words) > 1:
        wrong = kind if kind not in LISTS else words[1]
        raise ValueError(f"unknown word {wrong!r}{_meant(wrong, LISTS)} Choose one of {', '.join(LISTS)}.")
    module, registry = LISTS[kind].split(":")
    print("\n".join(getattr(import_module(module), registry)))


def _named(path: str) -> Callable[..., object]:
    module, function = path.split(":")
    found: Callable[..., object] = getattr(import_module(module), function)
    return found


def _meant(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else "."


if __name__ == "__main__":
    main()
