"""`load_benchmark`: a named benchmark as training, validation and test sets with class counts, checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import datasets
import torch

from ccsam_hf.data.checks import check_draw, check_pool, check_record, check_test_classes
from ccsam_hf.data.cifar import cifar_from_folder
from ccsam_hf.data.counts import counts_from_labels, labels_of
from ccsam_hf.data.digits import DIGIT_NAMES, load_digits
from ccsam_hf.data.hub import hub_splits
from ccsam_hf.data.listed import read_lists, splits_from_files, splits_from_hub
from ccsam_hf.data.records import BenchmarkRecord, benchmark_record
from ccsam_hf.data.sources import Splits
from ccsam_hf.data.splits import long_tailed_positions, long_tailed_sizes, positions_outside, stratified_holdout

HOLDOUT_FRACTION = 0.1


@dataclass(frozen=True)
class Benchmark:
    """A loaded data set: columns `image` and `label` everywhere, `class_counts` int64 [C] of the training part.

    `settings` says how it was made (origin, imbalance ratio, split seed, hold-out), for records and cards.
    """

    record: BenchmarkRecord
    train: datasets.Dataset
    test: datasets.Dataset
    validation: datasets.Dataset | None
    class_counts: torch.Tensor
    label_names: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    image_column: str = "image"
    label_column: str = "label"

    @property
    def num_classes(self) -> int:
        return len(self.class_counts)

    @property
    def imbalance_ratio(self) -> float:
        """Largest over smallest class, as loaded."""
        return float(self.class_counts.max()) / float(self.class_counts.min())


@dataclass(frozen=True)
class Request:
    """What the caller of `load_benchmark` asked for."""

    record: BenchmarkRecord
    imbalance_ratio: float | None
    split_seed: int | None
    data_dir: Path | None
    list_dir: str | None
    hub_dataset: str | None
    holdout: bool
    subset: bool
    skip_broken_images: bool


def load_benchmark(
    name: str,
    *,
    imbalance_ratio: float | None = None,
    split_seed: int | None = 0,
    data_dir: str | Path | None = None,
    list_dir: str | None = None,
    hub_dataset: str | None = None,
    holdout: bool = False,
    subset: bool = False,
    skip_broken_images: bool = False,
) -> Benchmark:
    """Load one of `BENCHMARKS`, compared with its record.

    Args:
        name: "cifar10-lt", "cifar100-lt", "imagenet-lt", "places-lt", "inat2018" or "digits-lt".
        imbalance_ratio: for the sets made long-tailed on loading (CIFAR, digits); default: the record's.
        split_seed: seed of that draw and of the hold-out; None takes the first n images of each class (needed for
            CIFAR files that are a draw already).
        data_dir: CIFAR: folder of the parquet files (default: the Hub). Others: folder that the listed image paths
            start from.
        list_dir: folder or URL of the lists or JSON files; default: `data_dir`.
        hub_dataset: take the images from this Hub data set; with `list_dir` the listed ones, by file name, without
            it the set as it stands.
        holdout: tune without touching the test set. Drawn sets: n_max = 0.9 N at the same ratio, and a validation
            set of at most 0.1 N pool images a class outside the draw. Natural long tails: a tenth of each class,
            one image of each always stays in training.
        subset: accept sizes that differ from the record.
        skip_broken_images: drop image files that are missing or cannot be decoded, with a warning that counts them.

    Raises:
        ValueError: an unknown name, an option without effect, missing or damaged data, sizes that differ.
    """
    record = benchmark_record(name)
    folder = None if data_dir is None else Path(data_dir).expanduser()
    request = Request(
        record, imbalance_ratio, split_seed, folder, list_dir, hub_dataset, holdout, subset, skip_broken_images
    )
    _refuse_idle_options(request)
    splits = _LOADERS[record.family](request)
    return assembled(record, *_divided(request, splits))


def assembled(record: BenchmarkRecord, splits: Splits, settings: Mapping[str, Any]) -> Benchmark:
    """The loaded object of splits whose classes agree; ValueError for a class without a training image."""
    counts = counts_from_labels(labels_of(splits.train), len(splits.label_names), splits.label_names)
    for part in (splits.validation, splits.test):
        if part is not None:
            check_test_classes(counts.numpy(), labels_of(part), splits.label_names)
    about = {"origin": splits.origin, "dropped_images": splits.dropped} | dict(settings)
    return Benchmark(record, splits.train, splits.test, splits.validation, counts, splits.label_names, about)


def _divided(request: Request, splits: Splits) -> tuple[Splits, dict[str, Any]]:
    """The draw and the hold-out, with the settings that made them."""
    settings: dict[str, Any] = {"holdout": request.holdout}
    if request.record.drawn_on_loading:
        ratio = request.imbalance_ratio or request.record.imbalance_ratio
        assert ratio is not None
        return drawn(request, splits, ratio), settings | {"imbalance_ratio": ratio, "split_seed": request.split_seed}
    if not request.holdout:
        return splits, settings
    assert request.split_seed is not None
    divided = held_out(splits, HOLDOUT_FRACTION, request.split_seed)
    return divided, settings | {"split_seed": request.split_seed}


def drawn(request: Request, splits: Splits, imbalance_ratio: float) -> Splits:
    """The long-tailed draw from a pool; with a hold-out its n_max is 0.9 N and validation lies outside the draw."""
    record, seed = request.record, request.split_seed
    labels = labels_of(splits.train)
    counts = counts_from_labels(labels, len(splits.label_names), splits.label_names).numpy()
    if record.family == "cifar" and not request.subset:
        check_pool(record, counts, len(splits.test), seed)
    sizes = long_tailed_sizes(counts, imbalance_ratio)
    if not request.subset:
        check_draw(record, counts, sizes, imbalance_ratio)
    validation = None
    if request.holdout:
        largest = int(sizes.max())
        kept = int((1 - HOLDOUT_FRACTION) * largest)
        sizes = long_tailed_sizes(counts, imbalance_ratio, cap=kept)
        validation = splits.train.select(positions_outside(labels, sizes, seed, limit=largest - kept))
    return replace(splits, train=splits.train.select(long_tailed_positions(labels, sizes, seed)), validation=validation)


def held_out(splits: Splits, fraction: float, split_seed: int) -> Splits:
    """A share of each class moved from training to validation (in place of a validation set of the source)."""
    kept, held = stratified_holdout(labels_of(splits.train), fraction, split_seed)
    return replace(splits, train=splits.train.select(kept), validation=splits.train.select(held))


def _load_digits(request: Request) -> Splits:
    train, test = load_digits()
    return Splits(train, None, test, DIGIT_NAMES, "shipped with the package")


def _load_cifar(request: Request) -> Splits:
    record = request.record
    if request.data_dir is not None:
        return cifar_from_folder(record, request.data_dir)
    name = request.hub_dataset or record.hub_dataset
    assert name is not None
    by_hand = f"put the parquet files of the Hub's {record.hub_dataset} into a folder and give it as `data_dir`"
    return hub_splits(name, by_hand, record.image_column, record.label_column)


def _load_listed(request: Request) -> Splits:
    record = request.record
    by_hand = f"{record.source}; then give the folder of images and {', '.join(record.files.values())} as `data_dir`"
    if request.hub_dataset is not None and request.list_dir is None:
        splits = hub_splits(request.hub_dataset, by_hand)
        if not request.subset:
            size = None if splits.validation is None else len(splits.validation)
            check_record(record, labels_of(splits.train), size, len(splits.test))
        return splits
    if request.data_dir is None and request.hub_dataset is None:
        raise ValueError(f"{record.title} needs `data_dir` or `hub_dataset`. How to get the data: {by_hand}")
    lists = read_lists(record, request.data_dir or Path(), request.list_dir, request.subset)
    if not request.subset:
        size = None if lists.validation is None else len(lists.validation)
        check_record(record, lists.train.labels, size, len(lists.test))
    if request.hub_dataset is not None:
        return splits_from_hub(lists, request.hub_dataset, record.image_column)
    return splits_from_files(lists, request.skip_broken_images)


_LOADERS: dict[str, Callable[[Request], Splits]] = {
    "cifar": _load_cifar,
    "lists": _load_listed,
    "inaturalist": _load_listed,
    "digits": _load_digits,
}


def _refuse_idle_options(request: Request) -> None:
    """ValueError for an option that has no effect on this benchmark."""
    record, listed = request.record, request.record.family in ("lists", "inaturalist")
    seeded = record.drawn_on_loading or request.holdout
    idle = {
        "imbalance_ratio": request.imbalance_ratio is not None and not record.drawn_on_loading,
        "split_seed": request.split_seed != 0 and not seeded,
        "list_dir": request.list_dir is not None and not listed,
        "skip_broken_images": request.skip_broken_images and (not listed or request.hub_dataset is not None),
        "data_dir": request.data_dir is not None and (record.family == "digits" or request.hub_dataset is not None),
        "hub_dataset": request.hub_dataset is not None and record.family == "digits",
    }
    for option, without_effect in idle.items():
        if without_effect:
            beside = (
                " beside hub_dataset" if option in ("data_dir", "skip_broken_images") and request.hub_dataset else ""
            )
            raise ValueError(f"`{option}` has no effect on {record.name}{beside}: leave it out")
    if listed and request.holdout and request.split_seed is None:
        raise ValueError(f"The hold-out of {record.name} is drawn by `split_seed`: give a number")
