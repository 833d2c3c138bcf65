"""`measure_sharpness`: checkpoints and a split in, a report out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..data import labels_of
from ..evaluation.checkpoints import checkpoint_names, match_labels, training_counts
from ..evaluation.image_split import ImageSplit, SplitOptions, load_split, read_counts
from ..inference import Classifier, load_classifier, open_image
from ..sam.scope import CHOICES
from ..shots import SHOT_GROUPS
from .analysis import Checkpoint, analyse
from .budget import DIRECTIONS, MEASURES, AnalysisSettings, Sizes
from .problem import LoadModel
from .shot_samples import LabelledSplit

_DEFAULT = AnalysisSettings()
OF_THE_BENCHMARK = "benchmark"


@dataclass(frozen=True, kw_only=True)
class CheckpointSharpness(SplitOptions):
    """What `measure_sharpness` does. Options of `AnalysisSettings` and `Sizes` bear their names.

    `split` is the training set by default; a folder of class folders is taken whole.
    """

    model: list[str] = field(
        default_factory=list, metadata={"help": "Folders or Hub ids, compared in one report; one order of classes."}
    )
    output_dir: str = field(default="", metadata={"help": "Folder that the report, its figures and data go to."})
    labels: list[str] = field(
        default_factory=list,
        metadata={"help": "Their names in the report; default: the folders' names, as far as they differ."},
    )
    run_dir: list[str] = field(
        default_factory=list,
        metadata={"help": "A folder of checkpoint-STEP folders for each model: path and history."},
    )
    class_counts: str | None = field(
        default=None,
        metadata={
            "help": "JSON list of training counts in the model's label order or {name: count}, or the word benchmark, "
            "for models that do not record them."
        },
    )
    budget: float = field(default=10.0, metadata={"help": "Minutes; chooses the sizes that are not given."})
    samples: int | None = field(default=None, metadata={"help": "Images for features and class gradients."})
    few_samples: int | None = field(default=None, metadata={"help": "Images for passes of the whole network."})
    levels: int | None = field(default=None, metadata={"help": "Noise levels in each range."})
    seeds: int | None = field(default=None, metadata={"help": "Noise directions."})
    grid: int | None = field(default=None, metadata={"help": "Points of a landscape along each axis, odd."})
    steps: int | None = field(default=None, metadata={"help": "Lanczos steps."})
    probes: int | None = field(default=None, metadata={"help": "Hutchinson probes."})
    ascent_steps: int | None = field(default=None, metadata={"help": "Ascent steps of SAM's sharpness."})
    measures: list[str] = field(
        default_factory=lambda: list(MEASURES), metadata={"help": f"Among {', '.join(MEASURES)}."}
    )
    scopes: list[str] = field(default_factory=lambda: list(_DEFAULT.scopes), metadata={"help": f"Of noise: {CHOICES}."})
    directions: list[str] = field(
        default_factory=lambda: list(DIRECTIONS), metadata={"help": f"Of noise: {', '.join(DIRECTIONS)}."}
    )
    groups: list[str] | None = field(
        default=None, metadata={"help": f"Among {', '.join(SHOT_GROUPS)}; default: those that have samples."}
    )
    noise_range: float = field(default=_DEFAULT.noise_range, metadata={"help": "Largest ‖ε‖/‖θ‖ of noise curves."})
    local_range: float = field(default=_DEFAULT.local_range, metadata={"help": "Largest ‖ε‖/‖θ‖ of the close view."})
    grid_range: float = field(default=_DEFAULT.grid_range, metadata={"help": "Half width of landscapes."})
    sharpness_radius: float = field(default=_DEFAULT.sharpness_radius, metadata={"help": "SAM's absolute ρ."})
    delta: float = field(default=_DEFAULT.delta, metadata={"help": "Failure probability of the bounds."})
    radius_scope: str = field(default=_DEFAULT.radius_scope, metadata={"help": "Weights of class gradients."})
    curvature_scope: str = field(
        default=_DEFAULT.curvature_scope, metadata={"help": "Weights of Hessian and SAM's sharpness."}
    )
    recalibrate_bn: bool = field(
        default=False, metadata={"help": "Re-estimate BatchNorm statistics at every weight vector."}
    )
    batch_size: int = field(default=_DEFAULT.batch_size, metadata={"help": "Images in one pass, in each thread."})
    seed: int = field(default=_DEFAULT.seed, metadata={"help": "Seed of samples and directions."})

    def __post_init__(self) -> None:
        missing = [f"--{name}" for name in ("model", "output_dir") if not getattr(self, name)]
        if missing:
            raise ValueError(f"{', '.join(missing)} must be given.")
        if len(self.labels) not in (0, len(self.model)):
            raise ValueError(f"--labels names {len(self.labels)} of {len(self.model)} models; name each of them.")
        if len(self.run_dir) not in (0, len(self.model)):
            raise ValueError(
                f"--run_dir names {len(self.run_dir)} folders for {len(self.model)} models; name one each."
            )

    @property
    def sizes(self) -> Sizes:
        """The sizes given."""
        return Sizes(**{size.name: getattr(self, size.name) for size in fields(Sizes)})

    def settings(self, data: ImageSplit) -> AnalysisSettings:
        """The settings of `analyse`, with the split's thresholds."""
        chosen: dict[str, Any] = {}
        for item in fields(AnalysisSettings):
            value = data.thresholds if item.name == "thresholds" else getattr(self, item.name)
            chosen[item.name] = tuple(value) if isinstance(value, list) else value
        return AnalysisSettings(**chosen)


def measure_sharpness(options: CheckpointSharpness) -> Path:
    """Measure the sharpness of checkpoints on a benchmark or on one's own images; returns the report's path.

    The checkpoints' own preprocessing is applied. Classes are matched by name with those of the first checkpoint;
    the others must have the same ones in the same order.

    Raises:
        ValueError: what `load_split`, `load_classifier` and `analyse` refuse; class counts that are unknown, or not
            those of the benchmark; checkpoints whose classes differ.
    """
    data = load_split(options, "train")
    first = load_classifier(options.model[0])
    names = checkpoint_names(dict(enumerate(first.label_names)), len(first.label_names))
    mapping = match_labels(data.label_names, names, len(first.label_names))
    checkpoints, counts = [], []
    for place, label in enumerate(options.labels or distinct_labels(options.model)):
        classifier = first if place == 0 else load_classifier(options.model[place])
        if classifier.label_names != first.label_names:
            raise ValueError(
                f"{options.model[place]} and {options.model[0]} have other classes or another order of them; measure "
                "them one by one."
            )
        counts.append(_counts(options, options.model[place], classifier, data, mapping))
        run = run_folders(Path(options.run_dir[place])) if options.run_dir else []
        earlier = [(step, _loader(folder)) for step, folder in run]
        source = options.model[place]
        checkpoints.append(Checkpoint(label, _loader(source), _pictures(classifier, data.images), earlier))
    if any(other != counts[0] for other in counts):
        raise ValueError("The checkpoints were trained with different class counts; measure them one by one.")
    labels = mapping[torch.tensor(labels_of(data.images))]
    class_counts = torch.tensor(counts[0])
    in_split = torch.bincount(labels, minlength=len(class_counts))
    is_training = data.split in ("train", "all") and torch.equal(in_split, class_counts)
    split = LabelledSplit(data.name, labels, class_counts, is_training)
    return analyse(checkpoints, split, options.output_dir, options.settings(data), options.sizes, options.budget)


def distinct_labels(models: Sequence[str]) -> list[str]:
    """The folders' names, with as many of the folders above as tell them apart: every run leaves one called model."""
    paths = [Path(model).parts for model in models]
    labels = [Path(model).name for model in models]
    for depth in range(2, max(map(len, paths)) + 1):
        if len(set(labels)) == len(labels):
            break
        labels = ["-".join(path[-depth:]).replace("/", "") for path in paths]
    return labels


def _loader(source: str | Path) -> LoadModel:
    def load() -> nn.Module:
        return load_classifier(source).model.float()

    return load


def _pictures(classifier: Classifier, images: Dataset) -> Callable[[Tensor], Tensor]:
    """Sample indices -> the model's inputs, by the transform that the checkpoint was evaluated with."""
    pictures = images.select_columns(["image"])

    def load(index: Tensor) -> Tensor:
        chosen = (open_image(pictures[place]["image"], place) for place in index.tolist())
        return torch.stack([classifier.transform(image) for image in tqdm(chosen, "images", len(index), disable=None)])

    return load


def run_folders(run: Path) -> list[tuple[int, Path]]:
    """(step, folder) of a run's checkpoint-STEP folders, by step."""
    found = [(int(folder.name.removeprefix("checkpoint-")), folder) for folder in run.glob("checkpoint-[0-9]*")]
    if len(found) < 3:
        raise ValueError(f"{run} holds {len(found)} checkpoint-STEP folders, a path needs 3; train with save_strategy.")
    return sorted(found)


def _counts(
    options: CheckpointSharpness, model: str, classifier: Classifier, data: ImageSplit, mapping: Tensor
) -> list[int]:
    """Training counts in the checkpoint's label order."""
    recorded, given = classifier.class_counts, options.class_counts
    if given is not None and given != OF_THE_BENCHMARK:
        recorded = read_counts(given, classifier.label_names)
    known = None
    if data.class_counts is not None:
        known = training_counts(data.class_counts, None, mapping, len(classifier.label_names)).tolist()
    return checked_counts(model, recorded, known, given == OF_THE_BENCHMARK, options.benchmark is not None)


def checked_counts(
    model: str, recorded: Sequence[int] | None, known: Sequence[int] | None, trusted: bool, on_benchmark: bool = True
) -> list[int]:
    """Training counts of a checkpoint: those of the data where `trusted`, else the recorded ones.

    Raises:
        ValueError: neither is there, or the recorded ones are not those of the benchmark.
    """
    if trusted:
        if known is None:
            raise ValueError("--class_counts benchmark: the data have no training set to count; pass a JSON file.")
        return list(known)
    if recorded is None:
        raise ValueError(
            f"{model} does not record the class counts of its training set, on which many, medium and few shot rest; "
            "pass --class_counts FILE.json, or --class_counts benchmark if it was trained on this very split."
        )
    if on_benchmark and list(recorded) != list(known or []):
        raise ValueError(
            f"The class counts of {model} are not those of the benchmark's training set; choose the imbalance ratio "
            "and split seed that it was trained with."
        )
    return list(recorded)
