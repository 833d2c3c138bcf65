"""What a benchmark is: its record, the splits that a source gives, and the loaded data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import datasets
import torch

from ..shots import ShotThresholds

Family = Literal["cifar", "lists", "inaturalist", "digits", "images"]
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class BenchmarkRecord:
    """One benchmark. Sizes are None where the data themselves decide (an image folder).

    A set with `class_size` is balanced at its source and made long-tailed on loading, at `imbalance_ratio` unless
    told otherwise; one without is long-tailed by nature or by a published list.
    """

    name: str
    title: str
    family: Family
    source: str
    licence: str
    citation: str
    num_classes: int | None
    test_size: int | None
    largest_class: int | None
    smallest_class: int | None
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

    @property
    def drawn_on_loading(self) -> bool:
        """Whether loading makes the set long-tailed (imbalance ratio and split seed then have an effect)."""
        return self.imbalance_ratio is not None


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

BENCHMARKS: dict[str, BenchmarkRecord] = {
    record.name: record for record in (_CIFAR10, _CIFAR100, _IMAGENET, _PLACES, _INATURALIST, _DIGITS)
}


def benchmark_record(name: str) -> BenchmarkRecord:
    """The record of that name, or a ValueError that lists the names."""
    if name not in BENCHMARKS:
        raise ValueError(f"Unknown benchmark {name!r}: choose one of {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]


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
