"""`load_benchmark`: a named benchmark as training, validation and test sets with class counts, checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .counts import counts_from_labels, labels_of
from .hub import hub_splits
from .long_tail import long_tailed_positions, long_tailed_sizes, positions_outside, stratified_holdout
from .records import SOURCE_OPTIONS, Benchmark, BenchmarkRecord, Request, Splits, benchmark_record
from .sources import DIGIT_NAMES, cifar_from_folder, load_digits, read_lists, splits_from_files, splits_from_hub

HOLDOUT_FRACTION = 0.1


def load_benchmark(
    benchmark: str | BenchmarkRecord | Benchmark,
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
    """Load one of `BENCHMARKS`, or one of your own, compared with its record.

    Args:
        benchmark: "cifar10-lt", "cifar100-lt", "imagenet-lt", "places-lt", "inat2018", "digits-lt", or a name given
            to `register_benchmark`; a `BenchmarkRecord` with a `load` of its own; a loaded `Benchmark`, which is
            returned as it is.
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
    options: dict[str, Any] = {
        "imbalance_ratio": imbalance_ratio,
        "split_seed": split_seed,
        "data_dir": None if data_dir is None else Path(data_dir).expanduser(),
        "list_dir": list_dir,
        "hub_dataset": hub_dataset,
        "holdout": holdout,
        "subset": subset,
        "skip_broken_images": skip_broken_images,
    }
    if isinstance(benchmark, Benchmark):
        given = [option for option, value in options.items() if value != getattr(Request(benchmark.record), option)]
        if given:
            raise ValueError(
                f"`{given[0]}` has no effect on {benchmark.record.name}, which is loaded already: leave it out"
            )
        return benchmark
    request = Request(benchmark_record(benchmark), **options)
    _refuse_idle_options(request)
    return assembled(request.record, *_divided(request, _loaded(request)))


def assembled(record: BenchmarkRecord, splits: Splits, settings: Mapping[str, Any]) -> Benchmark:
    """The loaded object of splits whose classes agree; ValueError for a class without a training image."""
    counts = counts_from_labels(labels_of(splits.train), len(splits.label_names), splits.label_names)
    for part in (splits.validation, splits.test):
        if part is not None:
            check_test_classes(counts.numpy(), labels_of(part), splits.label_names)
    about: dict[str, Any] = {"origin": splits.origin, "dropped_images": splits.dropped}
    if splits.left_out:
        about["left_out_files"] = splits.left_out
    about |= settings
    return Benchmark(record, splits.train, splits.test, splits.validation, counts, splits.label_names, about)


def _divided(request: Request, splits: Splits) -> tuple[Splits, dict[str, Any]]:
    """The draw and the hold-out, with the settings that made them."""
    settings: dict[str, Any] = {"holdout": request.holdout}
    if request.record.drawn_on_loading:
        ratio = request.record.imbalance_ratio if request.imbalance_ratio is None else request.imbalance_ratio
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


def _loaded(request: Request) -> Splits:
    """What the source holds. Benchmarks of the package compare it with their record as they read; others here."""
    record = request.record
    if record.load is None:
        return _LOADERS[record.family](request)
    splits = record.load(request)
    if not isinstance(splits, Splits):
        raise ValueError(f"`load` of {record.name} gave a {type(splits).__name__}, not `Splits`: return splits_of(...)")
    if not request.subset and not record.drawn_on_loading:
        size = None if splits.validation is None else len(splits.validation)
        check_record(record, labels_of(splits.train), size, len(splits.test))
    return splits


def _refuse_idle_options(request: Request) -> None:
    """ValueError for an option that has no effect on this benchmark."""
    record = request.record
    idle = {
        "imbalance_ratio": request.imbalance_ratio is not None and not record.drawn_on_loading,
        "split_seed": request.split_seed != 0 and not (record.drawn_on_loading or request.holdout),
    }
    idle |= {option: bool(getattr(request, option)) and option not in record.reads for option in SOURCE_OPTIONS}
    for option, without_effect in idle.items():
        if without_effect:
            own = ", unless its record names it in `reads`, as read by its `load`" if record.load else ""
            raise ValueError(f"`{option}` has no effect on {record.name}: leave it out{own}")
    for option in ("data_dir", "skip_broken_images"):
        if request.hub_dataset is not None and getattr(request, option):
            raise ValueError(f"`{option}` has no effect on {record.name} beside hub_dataset: leave it out")
    if request.holdout and request.split_seed is None and not record.drawn_on_loading:
        raise ValueError(f"The hold-out of {record.name} is drawn by `split_seed`: give a number")


def check_record(
    record: BenchmarkRecord, train_labels: np.ndarray, validation_size: int | None, test_size: int
) -> None:
    """ValueError that lists every number of a natural long tail that differs from the record."""
    counts = np.bincount(train_labels)
    found = {
        "training images": (record.train_size, len(train_labels)),
        "classes": (record.num_classes, len(counts)),
        "images in the largest class": (record.largest_class, int(counts.max())),
        "images in the smallest class": (record.smallest_class, int(counts.min())),
        "test images": (record.test_size, test_size),
    }
    if validation_size is not None and record.validation_size is not None:
        found["validation images"] = (record.validation_size, validation_size)
    differ = [f"{got:,} {what} instead of {want:,}" for what, (want, got) in found.items() if want not in (None, got)]
    if differ:
        raise ValueError(f"This is not {record.title}: {'; '.join(differ)}. {_SUBSET}")


def check_pool(record: BenchmarkRecord, counts: np.ndarray, test_size: int, split_seed: int | None) -> None:
    """ValueError unless the classes hold `class_size` images each, or are a long-tailed draw of that (and no seed)."""
    assert record.class_size is not None
    assert record.num_classes is not None
    full = record.class_size
    drawn_at = full / counts[-1]
    draw = [int(full * drawn_at ** (-c / (record.num_classes - 1))) for c in range(record.num_classes)]
    predrawn = len(counts) == record.num_classes and counts.tolist() == draw and drawn_at > 1
    balanced = counts.tolist() == [full] * record.num_classes
    if test_size != record.test_size or not (balanced or predrawn):
        raise ValueError(
            f"This is not {record.title}: {len(counts)} classes with {counts.min():,} to {counts.max():,} training "
            f"images ({counts.sum():,} in all) and {test_size:,} test images, instead of {record.num_classes} with "
            f"{full:,} each and {record.test_size:,}. {_SUBSET}"
        )
    if predrawn and split_seed is not None:
        raise ValueError(
            f"The {counts.sum():,} training images are already a draw of {record.title} at imbalance ratio "
            f"{drawn_at:g}, in draw order: pass split_seed=None (--split_seed none), which takes the first n of each "
            f"class, or give the whole {full * record.num_classes:,} images"
        )


def check_draw(record: BenchmarkRecord, counts: np.ndarray, sizes: np.ndarray, imbalance_ratio: float) -> None:
    """ValueError when a pool is too small for the full benchmark at this ratio (a pre-drawn one at a lower ratio)."""
    if record.class_size is not None and sizes.max() != record.class_size:
        raise ValueError(
            f"The training images at hand ({counts.min():,} to {counts.max():,} a class) are too few for "
            f"{record.title} at imbalance ratio {imbalance_ratio:g}: use a ratio of at least "
            f"{counts.max() / counts.min():g}, or give the whole training set"
        )


def check_test_classes(train_counts: np.ndarray, test_labels: np.ndarray, names: Sequence[str]) -> None:
    """ValueError when the test set has a class without a training image."""
    for label in np.unique(test_labels):
        if label >= len(train_counts) or train_counts[label] == 0:
            name = f" ({names[label]!r})" if label < len(names) else ""
            raise ValueError(
                f"The test set has {int((test_labels == label).sum())} images of class {label}{name}, of which "
                "training has none: add training images of it, or leave it out of the test set"
            )


_SUBSET = "If a part of it is meant, pass subset=True (--subset)"
