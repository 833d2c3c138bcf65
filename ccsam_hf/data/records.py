"""What a benchmark is: its record, the splits that a source gives, and the loaded data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import datasets
import torch

from .._shared.registry import Registry
from ..shots import ShotThresholds
from .counts import class_names, labels_of

Family = Literal["cifar", "lists", "inaturalist", "digits", "images", "own"]
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Options of `load_benchmark` that a source of images may read.
SOURCE_OPTIONS = ("data_dir", "list_dir", "hub_dataset", "skip_broken_images")


@dataclass(frozen=True)
class BenchmarkRecord:
    """One benchmark: what it is, how it is loaded, and what a correct copy contains.

    A set with `imbalance_ratio` is balanced at its source and made long-tailed on loading, at this ratio unless
    another is given; one without is long-tailed by nature or by a published list. Sizes are None where the data
    themselves decide; those given are compared with what was loaded.

    A benchmark of one's own needs a name and `load`:

        record = BenchmarkRecord("birds-lt", load=load_birds, imbalance_ratio=50, reads=("data_dir",))
        register_benchmark("birds-lt")(record)          # then load_benchmark("birds-lt"), --benchmark birds-lt
        load_benchmark(record)                          # or without a name

    Args:
        name, title: in commands, and in tables and cards (default: the name).
        family: how the package's own benchmarks are read; "own" for others.
        source, licence, citation: for cards.
        load: what reads the images, from a `Request` to `Splits` (see `splits_of`).
        reads: the options of `load_benchmark` that `load` reads, of `SOURCE_OPTIONS`; others are refused.
        class_size: images of each class at a balanced source.
        thresholds: where many- and few-shot end.
        input_size, mean, std, crop_pct, interpolation: how images become a model's input by default.
        hub_dataset, image_column, label_column, files: where the package's own benchmarks lie.
    """

    name: str
    title: str = ""
    family: Family = "own"
    source: str = "As the owner of the images says."
    licence: str = "As the owner of the images says."
    citation: str = ""
    num_classes: int | None = None
    test_size: int | None = None
    largest_class: int | None = None
    smallest_class: int | None = None
    train_size: int | None = None
    validation_size: int | None = None
    class_size: int | None = None
    imbalance_ratio: float | None = None
    thresholds: ShotThresholds = field(default_factory=ShotThresholds)
    input_size: tuple[int, int, int] = (3, 224, 224)
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    crop_pct: float = 0.875
    interpolation: str = "bilinear"
    hub_dataset: str | None = None
    image_column: str = "image"
    label_column: str = "label"
    files: Mapping[str, str] = field(default_factory=dict)
    load: Callable[[Request], Splits] | None = None
    reads: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        unknown = sorted(set(self.reads) - set(SOURCE_OPTIONS))
        if unknown:
            raise ValueError(f"reads of {self.name} names {unknown[0]!r}: choose among {', '.join(SOURCE_OPTIONS)}")
        if (self.load is None) == (self.family == "own"):
            raise ValueError(f"{self.name} needs `load`, a function from a `Request` to `Splits`, unless it is our own")
        if not self.title:
            object.__setattr__(self, "title", self.name)

    @property
    def drawn_on_loading(self) -> bool:
        """Whether loading makes the set long-tailed (imbalance ratio and split seed then have an effect)."""
        return self.imbalance_ratio is not None


@dataclass(frozen=True)
class Request:
    """What the caller of `load_benchmark` asked for; `data_dir` has its `~` expanded."""

    record: BenchmarkRecord
    imbalance_ratio: float | None = None
    split_seed: int | None = 0
    data_dir: Path | None = None
    list_dir: str | None = None
    hub_dataset: str | None = None
    holdout: bool = False
    subset: bool = False
    skip_broken_images: bool = False


@dataclass(frozen=True)
class Splits:
    """Data as a source holds them, before any long-tailed draw or hold-out.

    `origin` says where they came from, `dropped` counts broken images left out, and `left_out` names the files of a
    folder that are no images by their extension ("2 without extension, 1 .txt").
    """

    train: datasets.Dataset
    validation: datasets.Dataset | None
    test: datasets.Dataset
    label_names: tuple[str, ...]
    origin: str
    dropped: int = 0
    left_out: str = ""


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


_CIFAR_CITATION = "Krizhevsky, A. (2009). Learning Multiple Layers of Features from Tiny Images. University of Toronto."
_OLTR_CITATION = (
    "Liu, Z., Miao, Z., Zhan, X., Wang, J., Gong, B. and Yu, S. X. (2019). Large-Scale Long-Tailed Recognition in an "
    "Open World. CVPR."
)
_CIFAR_SPLIT = (
    "Long-tailed split: Cao et al. (2019), Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss."
)

_CIFAR10 = BenchmarkRecord(
    name="cifar10-lt",
    title="CIFAR-10-LT",
    family="cifar",
    source="https://www.cs.toronto.edu/~kriz/cifar.html",
    hub_dataset="uoft-cs/cifar10",
    licence="No licence is stated at the source; free for research with citation.",
    citation=f"{_CIFAR_CITATION} {_CIFAR_SPLIT}",
    num_classes=10,
    class_size=5000,
    test_size=10_000,
    largest_class=5000,
    smallest_class=50,
    imbalance_ratio=100,
    input_size=(3, 32, 32),
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
    crop_pct=1.0,
    image_column="img",
    label_column="label",
    reads=("data_dir", "hub_dataset"),
)
_CIFAR100 = replace(
    _CIFAR10,
    name="cifar100-lt",
    title="CIFAR-100-LT",
    hub_dataset="uoft-cs/cifar100",
    num_classes=100,
    class_size=500,
    largest_class=500,
    smallest_class=5,
    mean=(0.5071, 0.4865, 0.4409),
    std=(0.2673, 0.2564, 0.2762),
    label_column="fine_label",
)
_IMAGENET = BenchmarkRecord(
    name="imagenet-lt",
    title="ImageNet-LT",
    family="lists",
    source="Lists: https://github.com/zhmiao/OpenLongTailRecognition-OLTR; images: https://image-net.org",
    licence="ImageNet's terms of access: non-commercial research and education; the images may not be passed on.",
    citation=_OLTR_CITATION,
    num_classes=1000,
    train_size=115_846,
    validation_size=20_000,
    test_size=50_000,
    largest_class=1280,
    smallest_class=5,
    files={"train": "ImageNet_LT_train.txt", "validation": "ImageNet_LT_val.txt", "test": "ImageNet_LT_test.txt"},
    reads=SOURCE_OPTIONS,
)
_PLACES = replace(
    _IMAGENET,
    name="places-lt",
    title="Places-LT",
    source="Lists: https://github.com/zhmiao/OpenLongTailRecognition-OLTR; images: http://places2.csail.mit.edu",
    licence="Places365: images for non-commercial research and education under the source's terms.",
    num_classes=365,
    train_size=62_500,
    validation_size=7_300,
    test_size=36_500,
    largest_class=4980,
    files={"train": "Places_LT_train.txt", "validation": "Places_LT_val.txt", "test": "Places_LT_test.txt"},
)
_INATURALIST = BenchmarkRecord(
    name="inat2018",
    title="iNaturalist 2018",
    family="inaturalist",
    source="https://github.com/visipedia/inat_comp/tree/master/2018",
    licence="Each image bears its photographer's own licence (in the JSON); non-commercial research use.",
    citation="Van Horn, G. et al. (2018). The iNaturalist Species Classification and Detection Dataset. CVPR.",
    num_classes=8142,
    train_size=437_513,
    test_size=24_426,
    largest_class=1000,
    smallest_class=2,
    files={"train": "train2018.json", "test": "val2018.json"},
    reads=SOURCE_OPTIONS,
)
_DIGITS = BenchmarkRecord(
    name="digits-lt",
    title="Digits-LT (UCI optical digits, 8 x 8)",
    family="digits",
    source="https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits, shipped in the package",
    licence="CC BY 4.0",
    citation=(
        "Alpaydin, E. and Kaynak, C. (1998). Optical Recognition of Handwritten Digits [Dataset]. UCI Machine Learning "
        "Repository. https://doi.org/10.24432/C50P49"
    ),
    num_classes=10,
    class_size=128,
    test_size=500,
    largest_class=128,
    smallest_class=2,
    imbalance_ratio=50,
    # With 128 images in the largest class the field's 100 and 20 would leave one class many-shot.
    thresholds=ShotThresholds(many=50, few=10),
    input_size=(3, 8, 8),
    mean=(0.3048, 0.3048, 0.3048),
    std=(0.3756, 0.3756, 0.3756),
    crop_pct=1.0,
)

BENCHMARKS: Registry[BenchmarkRecord] = Registry(
    "benchmark", {record.name: record for record in (_CIFAR10, _CIFAR100, _IMAGENET, _PLACES, _INATURALIST, _DIGITS)}
)
register_benchmark = BENCHMARKS.register


def benchmark_record(benchmark: str | BenchmarkRecord) -> BenchmarkRecord:
    """The record itself, or the one of that name; ValueError with the nearest name and all of them."""
    return benchmark if isinstance(benchmark, BenchmarkRecord) else BENCHMARKS.find(benchmark)


def distinct_names(names: Sequence[str], keys: Sequence[str]) -> tuple[str, ...]:
    """Label names without doubles: a name that occurs twice gets its key in brackets (ImageNet has two cranes)."""
    counts = Counter(names)
    return tuple(name if counts[name] == 1 else f"{name} ({key})" for name, key in zip(names, keys, strict=True))


def standard_columns(dataset: datasets.Dataset, image_column: str, label_column: str, source: str) -> datasets.Dataset:
    """Only `image` and `label`, renamed from the source's columns; ValueError lists the columns when one lacks."""
    for column in (image_column, label_column):
        if column not in dataset.column_names:
            raise ValueError(f"{source} has no column {column!r}; its columns are {', '.join(dataset.column_names)}")
    dataset = dataset.select_columns([image_column, label_column])
    renamed = {image_column: "image", label_column: "label"}
    return dataset.rename_columns({old: new for old, new in renamed.items() if old != new})


def image_and_label_columns(
    dataset: datasets.Dataset, source: str, image_column: str | None = None, label_column: str | None = None
) -> tuple[str, str]:
    """The columns named, or the only column of images and the only one of classes; else ValueError."""
    images = [name for name, feature in dataset.features.items() if isinstance(feature, datasets.Image)]
    labels = [name for name, feature in dataset.features.items() if isinstance(feature, datasets.ClassLabel)]
    columns = ", ".join(dataset.column_names)
    if image_column is None and len(images) != 1:
        raise ValueError(f"{source} has {len(images)} image columns among {columns}: name one with `image_column`")
    if label_column is None and len(labels) != 1:
        raise ValueError(f"{source} has {len(labels)} class columns among {columns}: name one with `label_column`")
    return image_column or images[0], label_column or labels[0]


def splits_of(
    train: datasets.Dataset,
    test: datasets.Dataset,
    validation: datasets.Dataset | None = None,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    label_names: Sequence[str] | None = None,
    origin: str = "data sets at hand",
) -> Splits:
    """`Splits` of data sets at hand, as the `load` of a benchmark of one's own returns them.

    Args:
        train, test, validation: with a column of images and one of labels, under the same names.
        image_column, label_column: default: the only column of images and the only one of classes.
        label_names: the classes in label order; default: the names of the label column, or the numbers.
        origin: where the images came from, for records and cards.

    Raises:
        ValueError: no such columns; class names that differ between the parts.
    """
    columns = image_and_label_columns(train, origin, image_column, label_column)
    parts = [part if part is None else standard_columns(part, *columns, origin) for part in (train, test, validation)]
    if label_names is None:
        label_names = class_names(parts[0]) or [str(c) for c in range(int(labels_of(parts[0]).max()) + 1)]
    classes = datasets.ClassLabel(names=list(label_names))
    for split, part in zip(("train", "test", "validation"), parts, strict=True):
        own = None if part is None else class_names(part)
        if own is not None and own != classes.names:
            raise ValueError(
                f"The classes of {split} ({origin}) are not {', '.join(classes.names[:5])}: number them alike"
            )
    named = [part if part is None else part.cast_column("label", classes) for part in parts]
    return Splits(named[0], named[2], named[1], tuple(classes.names), origin)


def class_report(data: Benchmark, rows: int = 40, thresholds: ShotThresholds | None = None) -> str:
    """Sizes, imbalance ratio, many/medium/few classes, counts from the largest class down, and the few-shot names.

    At most `rows` classes are listed: the largest and the smallest ones. thresholds: the benchmark's by default.
    """
    counts, names = data.class_counts, data.label_names
    thresholds = thresholds or data.record.thresholds
    groups = thresholds.masks(counts)
    validation = "no" if data.validation is None else f"{len(data.validation):,}"
    sizes = f"{len(data.train):,} training, {validation} validation, {len(data.test):,} test images"
    lines = [
        f"{data.record.title}: {sizes}, {data.num_classes:,} classes, imbalance ratio {data.imbalance_ratio:g}",
        f"Shots (many {thresholds.many}, few {thresholds.few}, {thresholds.boundaries}): "
        + ", ".join(f"{int(mask.sum())} {group}" for group, mask in groups.items()),
    ]
    if data.settings.get("left_out_files"):
        lines.insert(1, f"Files left out, no images by their extension: {data.settings['left_out_files']}")
    head = len(lines)
    order = counts.argsort(descending=True, stable=True).tolist()
    shown = order if len(order) <= rows else [*order[: rows // 2], *order[-(rows // 2) :]]
    group_of = {c: group for group, mask in groups.items() for c in mask.nonzero().flatten().tolist()}
    width = max(len(names[c]) for c in shown)
    lines += [f"  {names[c]:<{width}}  {int(counts[c]):>7,}  {group_of[c]}" for c in shown]
    if len(shown) < len(order):
        lines.insert(head + rows // 2, f"  ... {len(order) - len(shown):,} classes between")
    few = [names[c] for c in order if groups["few"][c]]
    lines.append("Few-shot classes: " + (", ".join(few[:rows]) + (", ..." if len(few) > rows else "") or "none"))
    return "\n".join(lines)
