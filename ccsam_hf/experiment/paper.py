"""The paper's figures for the rows that a recipe's defaults repeat, to stand beside what was measured."""

from __future__ import annotations

from ..data import Benchmark
from .parsing import Settings

PAPER = "Zhou et al., CVPR 2023"
# (benchmark, imbalance ratio where the set is drawn on loading) -> network, top-1 accuracy in % after stage 2: Table 1.
PAPER_ROWS: dict[tuple[str, float | None], tuple[str, dict[str, float]]] = {
    ("cifar10-lt", 200): ("cifar_resnet32", {"accuracy": 80.94}),
    ("cifar10-lt", 100): ("cifar_resnet32", {"accuracy": 83.92}),
    ("cifar10-lt", 50): ("cifar_resnet32", {"accuracy": 86.22}),
    ("cifar100-lt", 200): ("cifar_resnet32", {"accuracy": 45.66}),
    ("cifar100-lt", 100): ("cifar_resnet32", {"accuracy": 50.83}),
    ("cifar100-lt", 50): ("cifar_resnet32", {"accuracy": 53.91}),
}
# Not read in print: the overall figures of two public summaries of the PDF at openaccess.thecvf.com (CVPR 2023), which
# agree, and the few-shot figures of one of them, whose CIFAR figures are those of `PAPER_ROWS`. Neither has many- or
# medium-shot figures. These rows stand in the headers of the recipes, which say so, and in no card.
SECOND_HAND_ROWS: dict[str, tuple[str, dict[str, float]]] = {
    "imagenet-lt": ("resnext50_32x4d", {"accuracy": 55.4, "few": 41.1}),
    "places-lt": ("resnet152", {"accuracy": 40.6, "few": 36.4}),
    "inat2018": ("resnet50", {"accuracy": 70.9, "few": 72.2}),
}


def paper_figures(settings: Settings, data: Benchmark) -> dict[str, float] | None:
    """The paper's figures as fractions, for its method on its data and network; None for any other run."""
    options, first, second = settings.benchmark, settings.stage1, settings.stage2
    ratio = data.settings["imbalance_ratio"] if data.record.drawn_on_loading else None
    network, figures = PAPER_ROWS.get((data.record.name, ratio), ("", {}))
    method = (first.perturbation, first.loss, second.rule, second.loss)
    same = method == ("ccsam", "cross_entropy", "adversarial", "cross_entropy")
    if not same or options.model.partition(".")[0] != network or options.subset or options.holdout:
        return None
    return {name: round(value / 100, 6) for name, value in figures.items()}
