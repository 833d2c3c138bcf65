"""The command-line options that name a benchmark, its splits and its shot groups, for every command on checkpoints."""

import argparse
from typing import Any

from datasets import Dataset

from ccsam_hf.data import BENCHMARKS, Benchmark, load_benchmark
from ccsam_hf.shots import ShotThresholds


def add_benchmark_options(group: Any) -> None:
    """--benchmark and the arguments of `load_benchmark`."""
    add = group.add_argument
    add("--benchmark", required=True, choices=sorted(BENCHMARKS))
    add("--data_dir")
    add("--list_dir")
    add("--hub_dataset")
    add("--imbalance_ratio", type=float)
    add("--split_seed", type=_seed, default=0, help="of the long-tailed draw; none: the first n of each class")
    add("--holdout", action="store_true", help="the benchmark with its hold-out, as the checkpoint was trained")
    add("--subset", action="store_true", help="accept sizes that differ from the benchmark's")


def _seed(text: str) -> int | None:
    return None if text.lower() == "none" else int(text)


def add_shot_options(group: Any) -> None:
    """--many, --few, --boundaries."""
    add = group.add_argument
    add("--many", type=int, help="shot thresholds on training counts; default: the benchmark's")
    add("--few", type=int)
    add("--boundaries", choices=("strict", "inclusive"), help="strict: > many, < few; inclusive: >=, <=")


def chosen_benchmark(options: argparse.Namespace) -> Benchmark:
    """What `add_benchmark_options` describe."""
    return load_benchmark(
        options.benchmark,
        imbalance_ratio=options.imbalance_ratio,
        split_seed=options.split_seed,
        data_dir=options.data_dir,
        list_dir=options.list_dir,
        hub_dataset=options.hub_dataset,
        holdout=options.holdout,
        subset=options.subset,
    )


def chosen_thresholds(options: argparse.Namespace, default: ShotThresholds) -> ShotThresholds:
    """The thresholds given, the benchmark's where none are."""
    given = {name: getattr(options, name) for name in ("many", "few", "boundaries")}
    return ShotThresholds(**default.describe() | {name: value for name, value in given.items() if value is not None})


def split_named(benchmark: Benchmark, name: str) -> Dataset:
    """The training, validation or test set; ValueError for a validation set that is not there."""
    split = {"train": benchmark.train, "validation": benchmark.validation, "test": benchmark.test}[name]
    if split is None:
        raise ValueError(
            f"{benchmark.record.name} has no validation set; use --split test, or --holdout if the checkpoint was "
            "trained with the hold-out."
        )
    return split
