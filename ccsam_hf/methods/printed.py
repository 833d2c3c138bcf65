"""Tables 1 to 4 of the paper as printed, with what the rows' own arithmetic contradicts.

Zhou et al., Class-Conditional Sharpness-Aware Minimization for Deep Long-Tailed Recognition, CVPR 2023. A dash stands
where a table has no figure. recipes/guides/paper.md lists the paper's slips.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

PAPER = "Zhou et al., CVPR 2023"
RATIOS = (200, 100, 50)
# Classes with many, medium and few training images; their shares turn group figures into the overall figure.
GROUP_CLASSES: Mapping[str, tuple[int, int, int]] = MappingProxyType(
    {"imagenet-lt": (385, 479, 136), "places-lt": (131, 163, 71), "inat2018": (842, 4076, 3224)}
)

# CIFAR-10-LT, then CIFAR-100-LT, at imbalance ratios 200, 100 and 50; overall top-1 accuracy in %.
_TABLE_1 = """
CE                    | 65.68 70.70 74.81 | 34.84 38.43 43.90
CE + mixup            | 65.84 72.96 79.48 | 35.84 40.01 45.16
LDAM-DRW              | 73.52 77.03 81.03 | 38.91 42.04 47.62
De-confound-TDE       | -     80.60 83.60 | -     44.15 50.31
CE + mixup + cRT      | 73.06 79.15 84.21 | 41.73 45.12 50.86
BBN                   | 73.47 79.82 81.18 | 37.21 42.56 47.02
Contrastive Learning  | -     81.40 85.36 | -     46.72 51.87
BGP                   | -     -     -     | 41.20 45.20 50.50
MiSLAS                | 77.31 82.06 85.16 | 42.33 47.50 52.62
VS + SAM              | -     82.40 -     | -     46.60 -
GCL                   | 79.03 82.68 85.46 | 44.88 48.71 53.55
CC-SAM                | 80.94 83.92 86.22 | 45.66 50.83 53.91
"""
# Places-LT, ResNet-152, overall.
_TABLE_2 = """
cRT             | 37.8
cRT + dir       | 38.9
cRT + mag       | 37.5
cRT + dir + mag | 40.1
CC-SAM          | 40.6
"""
# Many, medium, few, overall. The overall figure of CE on iNaturalist does not stand in the text that was read.
_TABLE_3 = """
CE               | imagenet-lt resnext50_32x4d | 65.9 37.5  7.7 44.4
τ-norm           | imagenet-lt resnet50        | 56.6 44.2 27.4 46.7
Balanced Softmax | imagenet-lt resnext50_32x4d | 64.1 48.2 33.4 52.3
LADE             | imagenet-lt resnext50_32x4d | 64.4 47.7 34.3 52.3
RSG              | imagenet-lt resnext50_32x4d | 63.2 48.2 32.2 51.8
DisAlign         | imagenet-lt resnet50        | 61.3 52.2 31.4 52.9
DisAlign         | imagenet-lt resnext50_32x4d | 62.7 52.1 31.4 53.4
ResLT            | imagenet-lt resnext50_32x4d | 63.0 53.3 35.5 52.9
BGP              | imagenet-lt resnet50        | -    -    -    51.5
MiSLAS           | imagenet-lt resnet50        | -    -    -    52.7
LDAM-DRW + SAM   | imagenet-lt resnet50        | 62.0 52.1 34.8 53.1
GCL              | imagenet-lt resnet50        | -    -    -    54.9
CC-SAM           | imagenet-lt resnet50        | 61.4 49.5 37.1 52.4
CC-SAM           | imagenet-lt resnext50_32x4d | 63.1 53.4 41.1 55.4
CE               | places-lt resnet152         | 45.7 27.3  8.2 30.2
τ-norm           | places-lt resnet152         | 37.8 40.7 31.8 37.9
Balanced Softmax | places-lt resnet152         | 42.0 39.3 30.5 38.6
LADE             | places-lt resnet152         | 42.8 39.0 31.2 38.8
RSG              | places-lt resnet152         | 41.9 41.4 32.0 39.3
DisAlign         | places-lt resnet152         | 40.4 42.4 30.1 39.3
ResLT            | places-lt resnet152         | 39.8 43.6 31.4 39.8
MiSLAS           | places-lt resnet152         | -    -    -    40.2
GCL              | places-lt resnet152         | -    -    -    40.6
CC-SAM           | places-lt resnet152         | 41.2 42.1 36.4 40.6
CE               | inat2018 resnet50           | 72.2 63.0 57.2 -
τ-norm           | inat2018 resnet50           | 65.6 65.3 65.9 65.6
Balanced Softmax | inat2018 resnet50           | -    -    -    70.6
LADE             | inat2018 resnet50           | -    -    -    70.0
RSG              | inat2018 resnet50           | -    -    -    70.3
DisAlign         | inat2018 resnet50           | -    -    -    70.6
ResLT            | inat2018 resnet50           | -    -    -    70.2
BGP              | inat2018 resnet50           | 70.0 69.9 69.6 70.5
MiSLAS           | inat2018 resnet50           | -    -    -    71.6
LDAM-DRW + SAM   | inat2018 resnet50           | 64.1 70.5 71.2 70.1
GCL              | inat2018 resnet50           | -    -    -    72.0
CC-SAM           | inat2018 resnet50           | 65.4 70.9 72.2 70.9
"""
# Open set: many, medium, few and F-measure on ImageNet-LT, then on Places-LT, whose backbone only Table 3 names.
_TABLE_4 = """
CE          | 40.1 10.4  0.4 .295 | 45.9 22.4  0.4 .366
Lifted loss | 34.8 29.3 17.4 .374 | 41.0 35.2 23.8 .459
Focal loss  | 35.7 29.3 15.6 .371 | 41.0 34.8 22.3 .453
Range loss  | 34.7 29.4 17.2 .373 | 41.0 35.3 23.1 .457
OpenMax     | 35.8 30.0 17.6 .368 | 41.1 35.4 23.2 .458
OLTR        | 41.9 33.9 17.4 .474 | 44.6 36.8 25.2 .464
IEM         | 46.1 42.3 20.1 .525 | 48.8 42.4 28.9 .486
LUNA        | 48.2 44.7 23.6 .579 | 48.1 41.6 29.0 .491
CC-SAM      | 61.4 49.5 37.1 .552 | 41.2 41.8 36.4 .510
"""


@dataclass(frozen=True)
class PrintedRow:
    """One row of one table on one benchmark; None where the table has a dash.

    Args:
        table: number of the paper's table, 1 to 4. Table 4 is measured in the open-set protocol.
        title: the method as the table names it.
        benchmark: name in `BENCHMARKS`.
        network: timm's or this package's name of the backbone.
        imbalance_ratio: for benchmarks with several.
        overall: top-1 accuracy in %; ``many``, ``medium`` and ``few`` likewise.
        f_measure: fraction of 1, in Table 4.
    """

    table: int
    title: str
    benchmark: str
    network: str
    imbalance_ratio: int | None = None
    overall: float | None = None
    many: float | None = None
    medium: float | None = None
    few: float | None = None
    f_measure: float | None = None

    @property
    def source(self) -> str:
        """Where the figures stand."""
        return f"{PAPER}, Table {self.table}"

    def fractions(self) -> dict[str, float]:
        """The accuracies as fractions of 1, by the names that a stage's metrics have."""
        names = {"accuracy": self.overall, "many": self.many, "medium": self.medium, "few": self.few}
        return {name: round(value / 100, 6) for name, value in names.items() if value is not None}

    def overall_of_groups(self) -> float | None:
        """Mean of the group figures weighted by the groups' classes; None where a group is missing."""
        groups, classes = (self.many, self.medium, self.few), GROUP_CLASSES.get(self.benchmark)
        if classes is None or None in groups:
            return None
        return sum(n * value for n, value in zip(classes, groups, strict=True) if value is not None) / sum(classes)


# Rows whose printed overall figure is not the mean of their printed groups, with that mean.
INCONSISTENT: Mapping[tuple[str, str], float] = MappingProxyType(
    {
        ("ResLT", "imagenet-lt"): 54.6,
        ("LDAM-DRW + SAM", "imagenet-lt"): 53.6,
        ("RSG", "places-lt"): 39.8,
        ("BGP", "inat2018"): 69.8,
    }
)


def printed(title: str) -> tuple[PrintedRow, ...]:
    """Every printed row of a method, in the order of the tables. KeyError: the paper has no row of that title."""
    if title not in PRINTED:
        raise KeyError(f"The paper's tables have no row {title!r}; they have {', '.join(PRINTED)}.")
    return PRINTED[title]


def _cells(table: str) -> Iterator[list[str]]:
    for line in table.strip().splitlines():
        yield [cell.strip() for cell in line.split("|")]


def _numbers(cell: str) -> list[float | None]:
    return [None if word == "-" else float(word) for word in cell.split()]


def _rows() -> Iterator[PrintedRow]:
    for title, *columns in _cells(_TABLE_1):
        for benchmark, column in zip(("cifar10-lt", "cifar100-lt"), columns, strict=True):
            for ratio, value in zip(RATIOS, _numbers(column), strict=True):
                if value is not None:
                    yield PrintedRow(1, title, benchmark, "cifar_resnet32", ratio, value)
    for title, figure in _cells(_TABLE_2):
        yield PrintedRow(2, title, "places-lt", "resnet152", overall=float(figure))
    for title, place, column in _cells(_TABLE_3):
        benchmark, network = place.split()
        many, medium, few, overall = _numbers(column)
        yield PrintedRow(3, title, benchmark, network, None, overall, many, medium, few)
    for title, *columns in _cells(_TABLE_4):
        ours = title == "CC-SAM"
        networks = ("resnet50" if ours else "resnet10", "resnet152")
        for benchmark, network, column in zip(("imagenet-lt", "places-lt"), networks, columns, strict=True):
            many, medium, few, f_measure = _numbers(column)
            yield PrintedRow(4, title, benchmark, network, None, None, many, medium, few, f_measure)


def _by_title() -> dict[str, tuple[PrintedRow, ...]]:
    found: dict[str, tuple[PrintedRow, ...]] = {}
    for row in _rows():
        found[row.title] = (*found.get(row.title, ()), row)
    return found


PRINTED: Mapping[str, tuple[PrintedRow, ...]] = MappingProxyType(_by_title())
