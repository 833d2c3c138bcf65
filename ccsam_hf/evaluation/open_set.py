"""Open long-tailed recognition of a checkpoint: fit the scorers, score, choose thresholds, report."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ccsam_hf.evaluation.options import OpenSetOptions
from ccsam_hf.evaluation.passes import BatchOutput, Columns, Runner
from ccsam_hf.metrics.inputs import ArrayLike
from ccsam_hf.metrics.open_set import (
    detection_figures,
    open_set_figures,
    threshold_for_f,
    threshold_for_recall,
)
from ccsam_hf.metrics.open_set_scores import NEED_FEATURES, PROBABILITIES, SCORERS, ClassSums
from ccsam_hf.metrics.openmax import OpenMax, fit_openmax
from ccsam_hf.shots import ShotThresholds


@dataclass(frozen=True)
class FittedScorers:
    """The chosen scorers with what they needed from the training set."""

    names: tuple[str, ...]
    means: Tensor | None = None
    openmax: OpenMax | None = None

    def scores(self, output: BatchOutput) -> dict[str, Tensor]:
        """Columns "score_NAME", [B] each."""
        columns = {}
        for name in self.names:
            if name == "openmax":
                assert self.openmax is not None
                columns[f"score_{name}"] = self.openmax.known_probability(output.logits)
            else:
                features = output.logits if output.features is None else output.features
                means = torch.empty(0) if self.means is None else self.means.to(features.device)
                columns[f"score_{name}"] = SCORERS[name](output.logits, features, means)
        return columns


def fit_scorers(runner: Runner, options: OpenSetOptions, training: Any | None, num_classes: int) -> FittedScorers:
    """Class means of the training features and OpenMax's tails, where a chosen scorer needs them.

    `training` are the training images under the *test* transform.
    """
    with_features = [name for name in options.scorers if name in NEED_FEATURES]
    needing = [*with_features, *(name for name in options.scorers if name == "openmax")]
    if not needing:
        return FittedScorers(options.scorers)
    if training is None:
        raise ValueError(
            f"The open-set scorers {', '.join(needing)} are fitted on training images; pass them (under the test "
            "transform) as OpenSet.training, or choose from probability, logit, energy."
        )
    means = openmax = None
    if with_features:
        width = runner.tap_features(training)
        means = _means(runner, training, ClassSums.zeros(num_classes, width), _features)
    if "openmax" in options.scorers:
        logit_means = _means(runner, training, ClassSums.zeros(num_classes, num_classes), _logits_if_right)
        distances = _distances(runner, training, logit_means)
        openmax = fit_openmax(logit_means, distances, options.tail_size, options.alpha)
    return FittedScorers(options.scorers, means, openmax)


def _features(output: BatchOutput) -> tuple[Tensor, Tensor]:
    assert output.features is not None
    return output.features, output.labels


def _logits_if_right(output: BatchOutput) -> tuple[Tensor, Tensor]:
    right = output.logits.argmax(dim=1) == output.labels
    return output.logits[right], output.labels[right]


def _means(
    runner: Runner, training: Any, empty: ClassSums, pick: Callable[[BatchOutput], tuple[Tensor, Tensor]]
) -> Tensor:
    """Class means over the whole training set of the vectors that `pick` takes from each batch."""
    sums = empty

    def measure(output: BatchOutput) -> dict[str, Tensor]:
        nonlocal sums
        sums = sums + ClassSums.of(*pick(output), len(empty.count))
        return {}

    runner.run(training, measure, "class means")
    total = runner.sum({"total": sums.total, "count": sums.count})
    return ClassSums(total["total"], total["count"]).means()


def _distances(runner: Runner, training: Any, means: Tensor) -> list[np.ndarray]:
    """Distance of each rightly classified training image's logits to its class's mean, by class."""

    def measure(output: BatchOutput) -> dict[str, Tensor]:
        own = means.to(output.logits.device)[output.labels]
        right = output.logits.argmax(dim=1) == output.labels
        return {"label": torch.where(right, output.labels, -1), "distance": (output.logits - own).norm(dim=1)}

    columns = runner.run(training, measure, "OpenMax distances")
    return [columns["distance"][columns["label"] == c] for c in range(len(means))]


@dataclass(frozen=True)
class HoldOut:
    """Columns of hold-out images, on which thresholds are chosen: known ones, and open ones where there are some."""

    known: Columns
    open: Columns | None = None


def open_set_report(
    columns: Mapping[str, np.ndarray],
    class_counts: ArrayLike,
    thresholds: ShotThresholds,
    options: OpenSetOptions,
    holdout: HoldOut | None = None,
) -> dict[str, dict[str, Any]]:
    """Figures of each scorer from the joined columns (label -1: open image).

    A scorer without a threshold (no hold-out, and not a probability) has the threshold-free figures only.
    """
    report = {}
    for name in options.scorers:
        scores = columns[f"score_{name}"]
        threshold, rule = choose_threshold(name, options, holdout, len(np.asarray(class_counts)))
        figures = detection_figures(scores, columns["label"])
        if threshold is not None:
            decided = open_set_figures(
                columns["prediction"], columns["label"], scores, threshold, class_counts, thresholds
            )
            figures = {**figures, **decided}
        report[name] = {**figures, "threshold_rule": rule}
    return report


def choose_threshold(
    name: str, options: OpenSetOptions, holdout: HoldOut | None, num_classes: int
) -> tuple[float | None, str]:
    """Rejection threshold of a scorer and how it was chosen; never on test images."""
    score = f"score_{name}"
    if holdout is None:
        if name in PROBABILITIES:
            return options.threshold, "fixed"
        return None, "no threshold without a hold-out"
    if holdout.open is None:
        rule = f"accepts {options.holdout_recall:g} of the known hold-out images"
        return threshold_for_recall(holdout.known[score], options.holdout_recall), rule
    joined = join_open(holdout.known, holdout.open)
    chosen = threshold_for_f(joined["prediction"], joined["label"], joined[score], num_classes)
    return chosen, "best f_measure on the hold-out"


def join_open(known: Columns, unknown: Columns) -> Columns:
    """Known and open images (labelled -1) in one table of the columns that both have."""
    return {name: np.concatenate([known[name], values]) for name, values in unknown.items()}
