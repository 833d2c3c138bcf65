"""The labelled split that a command on checkpoints works on: a benchmark's, or the user's own images."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import datasets
from torch import Tensor

from ..data import BENCHMARKS, Benchmark, class_counts, load_benchmark, load_images
from ..data.counts import class_names
from ..data.folder import class_folders, list_folder
from ..data.hub import TEST_SPLITS, image_and_label_columns, load_hub
from ..data.image_lists import as_dataset
from ..data.records import standard_columns
from ..shots import ShotThresholds

Boundaries = Literal["strict", "inclusive"]
SAVED_FILES = ("state.json", "dataset_dict.json")  # what `save_to_disk` of a data set or of its splits leaves
BENCHMARK_ONLY = ("imbalance_ratio", "list_dir", "subset")
DRAWN_ONLY = ("split_seed", "holdout")
HUB_ONLY = ("image_column", "label_column")


@dataclass(frozen=True, kw_only=True)
class SplitOptions:
    """Which images, which of their splits, and where many- and few-shot begin.

    Without a benchmark `data_dir` or `hub_dataset` names the user's own images:

    * a folder of class folders is one split as it stands;
    * a folder with `train`, and maybe `test` or `val`, is divided as `load_images` divides it for training;
    * a folder that `save_to_disk` of the library datasets left, or a Hub data set, has the splits that it has.
    """

    benchmark: str | None = field(
        default=None, metadata={"help": f"One of {', '.join(sorted(BENCHMARKS))}; leave out for your own images."}
    )
    data_dir: str | None = field(
        default=None, metadata={"help": "Folder of the benchmark's files, or of your own images."}
    )
    hub_dataset: str | None = field(
        default=None, metadata={"help": "Hub data set, or the folder of one saved on disk."}
    )
    split: str | None = field(default=None, metadata={"help": "Split to work on; default: see the command."})
    image_column: str | None = field(
        default=None, metadata={"help": "Column of images of your Hub data set, if it has several."}
    )
    label_column: str | None = field(default=None, metadata={"help": "Its column of classes, if it has several."})
    list_dir: str | None = field(default=None, metadata={"help": "Folder or URL of the benchmark's lists."})
    imbalance_ratio: float | None = field(
        default=None, metadata={"help": "Largest over smallest class, for sets made long-tailed on loading."}
    )
    split_seed: str = field(
        default="0", metadata={"help": "Seed of the long-tailed draw; none: the first n images of each class."}
    )
    holdout: bool = field(
        default=False, metadata={"help": "The data with their hold-out, as the checkpoint was trained."}
    )
    subset: bool = field(default=False, metadata={"help": "Accept sizes that differ from the benchmark's."})
    many: int | None = field(
        default=None, metadata={"help": "Shot thresholds on training counts; default: the benchmark's, or 100."}
    )
    few: int | None = field(default=None, metadata={"help": "As --many; default: the benchmark's, or 20."})
    boundaries: Boundaries | None = field(default=None, metadata={"help": "strict: > many, < few; inclusive: >=, <=."})

    @property
    def seed_of_split(self) -> int | None:
        """`split_seed` as `load_benchmark` takes it."""
        if self.split_seed.lower() == "none":
            return None
        try:
            return int(self.split_seed)
        except ValueError as error:
            raise ValueError(f"--split_seed {self.split_seed} is neither a whole number nor none.") from error

    def thresholds(self, default: ShotThresholds) -> ShotThresholds:
        """The thresholds given; those of `default` where none are."""
        given = {name: getattr(self, name) for name in ("many", "few", "boundaries")}
        chosen = {name: value for name, value in given.items() if value is not None}
        return ShotThresholds(**{**default.describe(), **chosen})

    def refuse(self, names: Sequence[str], why: str) -> None:
        """ValueError where one of these options differs from its default."""
        default = {item.name: item.default for item in fields(SplitOptions)}
        useless = [f"--{name}" for name in names if getattr(self, name) != default[name]]
        if useless:
            raise ValueError(f"{', '.join(useless)} without effect: {why}; leave out.")


@dataclass(frozen=True)
class ImageSplit:
    """Labelled images, columns `image` and `label`, and what the data say of their training set.

    name: for reports, such as "digits-lt test". label_names, class_counts: in the split's label order, None where the
    data do not tell. training, validation: the other splits, for open-set scorers and thresholds.
    """

    name: str
    split: str
    images: datasets.Dataset
    label_names: Sequence[str] | None
    class_counts: Tensor | None
    thresholds: ShotThresholds
    settings: dict[str, Any]
    training: datasets.Dataset | None = None
    validation: datasets.Dataset | None = None

    @property
    def required_validation(self) -> datasets.Dataset:
        """The validation set; ValueError where there is none."""
        if self.validation is None:
            raise _without_validation(self.name.rsplit(" ", 1)[0])
        return self.validation


def load_split(options: SplitOptions, default: str) -> ImageSplit:
    """The split that the options name.

    Args:
        options: benchmark, or folder or data set of the user's own images.
        default: "train" or "test": the split to take where the data have several and the options name none.

    Raises:
        ValueError: no data or two sources of them, an option without effect, a split that is not there, or what
            `load_benchmark` and `load_images` refuse.
    """
    if options.benchmark is not None:
        options.refuse(HUB_ONLY, "the benchmark has its own columns")
        return _of_benchmark(_benchmark(options), options, default, options.benchmark)
    if (options.data_dir is None) == (options.hub_dataset is None):
        raise ValueError("Name the images: --benchmark, or either --data_dir or --hub_dataset for your own.")
    options.refuse(BENCHMARK_ONLY, "they belong to a benchmark")
    if options.hub_dataset is not None or _is_saved(Path(str(options.data_dir)).expanduser()):
        options.refuse(DRAWN_ONLY, "a Hub or saved data set is taken as it is divided")
        return _of_saved(options, default)
    options.refuse(HUB_ONLY, "a folder of images has no columns")
    folder = Path(str(options.data_dir)).expanduser()
    if (folder / "train").is_dir() or (options.split is not None and not _test_folders(folder)):
        data = load_images(data_dir=folder, split_seed=options.seed_of_split or 0, holdout=options.holdout)
        return _of_benchmark(data, options, default, folder.resolve().name)
    options.refuse(DRAWN_ONLY, "the folder is one split as it stands")
    return _of_folder(folder, options)


def _benchmark(options: SplitOptions) -> Benchmark:
    return load_benchmark(
        str(options.benchmark),
        imbalance_ratio=options.imbalance_ratio,
        split_seed=options.seed_of_split,
        data_dir=options.data_dir,
        list_dir=options.list_dir,
        hub_dataset=options.hub_dataset,
        holdout=options.holdout,
        subset=options.subset,
    )


def _of_benchmark(data: Benchmark, options: SplitOptions, default: str, name: str) -> ImageSplit:
    split = options.split or default
    parts = {"train": data.train, "validation": data.validation, "test": data.test}
    if split not in parts:
        raise ValueError(f"{name} has no split {split!r}; choose among {', '.join(parts)}.")
    images = parts[split]
    if images is None:
        raise _without_validation(name)
    return ImageSplit(
        name=f"{name} {split}",
        split=split,
        images=images,
        label_names=data.label_names,
        class_counts=data.class_counts,
        thresholds=options.thresholds(data.record.thresholds),
        settings=dict(data.settings),
        training=data.train,
        validation=data.validation,
    )


def _without_validation(name: str) -> ValueError:
    return ValueError(
        f"{name} has no validation set; use --split test, or --holdout if the checkpoint was trained with the hold-out."
    )


def _test_folders(folder: Path) -> list[Path]:
    return [folder / name for name in TEST_SPLITS if (folder / name).is_dir()]


def _of_folder(folder: Path, options: SplitOptions) -> ImageSplit:
    """Class folders as one split; of a folder with `test` or `val` folders the one asked for, or the first."""
    found = _test_folders(folder)
    if found:
        root = folder / options.split if options.split is not None else found[0]
        if root not in found:
            raise ValueError(f"{folder} has no folder {options.split!r}; it has {', '.join(p.name for p in found)}.")
    else:
        root = folder
    names = class_folders(root, at_least=1)
    images, _ = list_folder(root, names)
    split = root.name if found else "all"
    return ImageSplit(
        name=f"{folder.resolve().name} {split}",
        split=split,
        images=as_dataset(images, names).select_columns(["image", "label"]),
        label_names=names,
        class_counts=None,
        thresholds=options.thresholds(ShotThresholds()),
        settings={"origin": f"image folder {folder.resolve().name}"},
    )


def _is_saved(folder: Path) -> bool:
    return any((folder / name).is_file() for name in SAVED_FILES)


def _of_saved(options: SplitOptions, default: str) -> ImageSplit:
    """One split of a Hub data set, or of one that `save_to_disk` wrote."""
    source = str(options.hub_dataset or options.data_dir)
    place = Path(source).expanduser()
    by_hand = "save its images in class folders and give these as --data_dir"
    loaded = datasets.load_from_disk(place) if _is_saved(place) else load_hub(source, by_hand)
    single = isinstance(loaded, datasets.Dataset)
    splits = {"all": loaded} if single else {str(key): part for key, part in loaded.items()}
    split = _chosen(splits, options.split, default, source)
    parts = {key: _standard(part, options, source) for key, part in splits.items()}
    names = class_names(parts[split])
    if names is None:
        warnings.warn(
            f"The labels of {source!r} have no names: their numbers are taken as the checkpoint's. Cast the column to "
            "datasets.ClassLabel to have the classes matched by name.",
            stacklevel=3,
        )
    training = parts.get("train")
    counted = training is not None and names is not None and class_names(training) == names
    name = place.resolve().name if place.is_dir() else source
    return ImageSplit(
        name=f"{name} {split}",
        split=split,
        images=parts[split],
        label_names=names,
        class_counts=class_counts(training) if counted else None,
        thresholds=options.thresholds(ShotThresholds()),
        settings={"origin": f"data set in folder {name}" if place.is_dir() else f"Hub data set {name}"},
        training=training,
        validation=next((parts[key] for key in ("validation", "valid", "val") if key in parts and key != split), None),
    )


def _chosen(splits: dict[str, datasets.Dataset], asked: str | None, default: str, source: str) -> str:
    """The split asked for; else the only one, `train`, or the first of `TEST_SPLITS`."""
    candidates = [asked] if asked is not None else ["train"] if default == "train" else list(TEST_SPLITS)
    if asked is None and len(splits) == 1:
        return next(iter(splits))
    for name in candidates:
        if name in splits:
            return name
    raise ValueError(f"{source!r} has the splits {', '.join(splits)} and no {candidates[0]!r}; name one with --split.")


def _standard(part: datasets.Dataset, options: SplitOptions, source: str) -> datasets.Dataset:
    """Columns `image` and `label`; text classes are numbered in alphabetical order."""
    columns = image_and_label_columns(part, source, options.image_column, options.label_column)
    standard = standard_columns(part, *columns, source)
    feature = standard.features["label"]
    if isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string"):
        return standard.cast_column("label", datasets.ClassLabel(names=sorted(standard.unique("label"))))
    return standard


def read_counts(path: str | Path, label_names: Sequence[str]) -> list[int]:
    """Training counts in the checkpoint's label order, from a JSON list in that order or an object {name: count}."""
    found = json.loads(Path(path).read_text(encoding="utf-8"))
    if isinstance(found, dict):
        unknown = sorted(set(found) ^ set(label_names))
        if unknown:
            raise ValueError(f"The classes of {path} are not the checkpoint's: {', '.join(unknown[:5])} differ.")
        found = [found[name] for name in label_names]
    if not isinstance(found, list) or len(found) != len(label_names):
        raise ValueError(f"{path} must hold a training count for each of the checkpoint's {len(label_names)} classes.")
    return [int(count) for count in found]
