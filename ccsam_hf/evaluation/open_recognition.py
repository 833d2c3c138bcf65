"""Open long-tailed recognition: images of unknown classes, scorers, thresholds, figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from datasets.exceptions import DatasetsError
from torch import Tensor

from ..data import BENCHMARKS, load_benchmark
from ..data.image_lists import as_dataset, read_list, require_files
from ..metrics.inputs import ArrayLike
from ..metrics.open_set import (
    NEED_FEATURES,
    PROBABILITIES,
    SCORERS,
    ClassSums,
    OpenMax,
    detection_figures,
    fit_openmax,
    open_set_figures,
    threshold_for_f,
    threshold_for_recall,
)
from ..shots import ShotThresholds
from .checkpoints import OpenImages
from .runner import BatchOutput, Columns, Runner

OPEN_SCORERS = (*SCORERS, "openmax")


@dataclass(frozen=True)
class OpenSetOptions:
    """How images of unknown classes are told apart.

    threshold: reject below this score, where no hold-out is given and the score is a probability (0.1: OLTR).
    holdout_recall: share of known hold-out images to accept, where a hold-out without open images is given.
    """

    scorers: tuple[str, ...] = ("probability",)
    threshold: float = 0.1
    holdout_recall: float = 0.95
    tail_size: int = 20
    alpha: int = 10

    def __post_init__(self) -> None:
        unknown = [name for name in self.scorers if name not in OPEN_SCORERS]
        if unknown or not self.scorers:
            raise ValueError(f"Open-set scorers {unknown} are unknown; choose from {', '.join(OPEN_SCORERS)}.")


@dataclass(frozen=True)
class OpenSet:
    """Images of unknown classes to be told apart, and what thresholds and scorers are fitted on.

    images: the open test images (their labels are ignored). training: training images under the *test* transform, for
    scorers that need them. holdout, open_holdout: known and open images that thresholds are chosen on, never test ones.
    """

    images: Any
    training: Any | None = None
    holdout: Any | None = None
    open_holdout: Any | None = None
    options: OpenSetOptions = field(default_factory=OpenSetOptions)

    def __post_init__(self) -> None:
        if self.open_holdout is not None and self.holdout is None:
            raise ValueError("open_holdout without holdout: known hold-out images are needed too to choose by F.")
        without_effect = {
            "threshold": self.holdout is not None,
            "holdout_recall": self.holdout is None or self.open_holdout is not None,
            "tail_size": "openmax" not in self.options.scorers,
            "alpha": "openmax" not in self.options.scorers,
        }
        chosen, default = asdict(self.options), asdict(OpenSetOptions())
        for name, useless in without_effect.items():
            if useless and chosen[name] != default[name]:
                raise ValueError(
                    f"{name}={chosen[name]} has no effect: threshold needs that no hold-out chooses it, holdout_recall "
                    "a hold-out without open images, tail_size and alpha the scorer openmax."
                )

    def as_inputs(self, inputs: Callable[[Any], Any]) -> OpenSet:
        """The same with each data set as model inputs, open images labelled -1."""
        return replace(
            self,
            images=OpenImages(inputs(self.images)),
            training=None if self.training is None else inputs(self.training),
            holdout=None if self.holdout is None else inputs(self.holdout),
            open_holdout=None if self.open_holdout is None else OpenImages(inputs(self.open_holdout)),
        )


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


def score_images(runner: Runner, dataset: Any, scorers: FittedScorers, title: str) -> Columns:
    """label, prediction and score_NAME of each image, labels not looked at."""

    def measure(output: BatchOutput) -> dict[str, Tensor]:
        prediction = output.logits.argmax(dim=1)
        return {"label": output.labels, "prediction": prediction, **scorers.scores(output)}

    return runner.run(dataset, measure, title)


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


def load_open_images(source: str, data_dir: str | Path | None = None, split: str | None = None) -> datasets.Dataset:
    """Images of a data set whose classes the checkpoint does not know, column `image`; labels are dropped.

    Args:
        source: a benchmark's name (its test images: "cifar100-lt" for a CIFAR-10 checkpoint); a list file such as
            `ImageNet_LT_open.txt` or `Places_LT_open.txt` (one `path label` a line); a folder of images, or of what
            `datasets.load_dataset` reads; or the id of a Hub data set.
        data_dir: folder that a list's paths start from, or of a benchmark's files.
        split: of a Hub data set or folder; by default "test", or the only one.

    Raises:
        ValueError: nothing of that name, or no image column; the message says what to do.
    """
    if split is not None and (source in BENCHMARKS or source.endswith(".txt")):
        raise ValueError(f"The open split {split!r} has no effect on a benchmark or list; leave it out.")
    if source in BENCHMARKS:
        images = load_benchmark(source, data_dir=data_dir).test
    elif source.endswith(".txt"):
        images = _listed(Path(source), data_dir)
    else:
        if data_dir is not None:
            raise ValueError("The open images' data_dir has no effect on a folder or Hub data set; leave it out.")
        images = _loaded(source, split)
    return images.select_columns([_image_column(images, source)]).rename_columns(_renamed(images, source))


def _listed(path: Path, data_dir: str | Path | None) -> datasets.Dataset:
    images = read_list(path, Path(data_dir) if data_dir is not None else path.parent)
    require_files(images)
    # The lists number their open classes as they like; all of them are "open" here.
    images.labels[:] = np.zeros_like(images.labels)
    return as_dataset(images, ["open"])


def _loaded(source: str, split: str | None) -> datasets.Dataset:
    try:
        found = datasets.load_dataset(source)
    except (OSError, ValueError, DatasetsError) as error:
        raise ValueError(
            f"The open images {source!r} are neither a benchmark ({', '.join(BENCHMARKS)}), nor a list file (.txt), "
            f"nor a folder or Hub data set that can be loaded: {error}"
        ) from error
    wanted = split or (str(next(iter(found))) if len(found) == 1 else "test")
    if wanted not in found:
        raise ValueError(
            f"{source!r} has the splits {', '.join(map(str, found))} and no {wanted!r}; name one as the open split "
            "(--open_split)."
        )
    return found[wanted]


def _image_column(images: datasets.Dataset, source: str) -> str:
    columns: Sequence[str] = [name for name, kind in images.features.items() if isinstance(kind, datasets.Image)]
    if len(columns) != 1:
        raise ValueError(
            f"{source!r} has {len(columns)} image columns among {', '.join(images.column_names)}, not one."
        )
    return columns[0]


def _renamed(images: datasets.Dataset, source: str) -> dict[str, str]:
    column = _image_column(images, source)
    return {} if column == "image" else {column: "image"}
