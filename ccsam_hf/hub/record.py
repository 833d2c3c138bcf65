"""The record of a run as plain values, written as run.json: all that a model card shows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from ..shots import SHOT_GROUPS, ShotThresholds

RECORD_FILE = "run.json"
CARD_FILE = "README.md"
METRICS_FILE = "metrics.json"
LONG_TAIL_FILE = "figures/long_tail.png"
Role = Literal["control", "stage1", "stage2"]
# One name, several or none.
Names = str | Sequence[str | None] | None
# Figures of a stage, as fractions of 1: what the card tabulates and the model-index lists.
HEADLINE = ("accuracy", *SHOT_GROUPS, "balanced_accuracy", "ece")


@dataclass(frozen=True)
class Citation:
    """One work to cite. role: what it stands for, such as "method", "data", "loss" or "package"."""

    role: str
    text: str
    bibtex: str | None = None


@dataclass(frozen=True)
class ModelRecord:
    """The network. preprocessing: how an image becomes its input (config.json's pretrained_cfg).

    training_prior: the class prior that the scores presume ("train", "uniform"), when known. remote_code: the Python
    file that the folder ships for an architecture of its own. classifier: the kind of the classifier where it is not
    linear, which timm cannot load. notes: what a reader must know, such as a classifier that was folded.
    """

    name: str
    architecture: str
    parameters: int | None = None
    library: Literal["timm", "transformers"] = "timm"
    task: str = "image-classification"
    preprocessing: dict[str, Any] = field(default_factory=dict)
    training_prior: str | None = None
    remote_code: str | None = None
    classifier: str | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _make_plain(self, "preprocessing")


@dataclass(frozen=True)
class DataRecord:
    """The training data and the test set. class_counts and label_names: in label order, empty when unknown.

    settings: how the set was made (imbalance ratio, split seed, hold-out). thresholds: of many/medium/few shot.
    split, test: what the figures were measured on, by its usual name and in words.
    """

    name: str
    title: str
    source: str | None = None
    licence: str | None = None
    hub_dataset: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    class_counts: tuple[int, ...] = ()
    label_names: tuple[str, ...] = ()
    thresholds: dict[str, Any] = field(default_factory=lambda: ShotThresholds().describe())
    split: str = "test"
    test: str | None = None

    def __post_init__(self) -> None:
        _make_plain(self, "settings", "thresholds")
        ShotThresholds(**self.thresholds)
        counts, names = len(self.class_counts), len(self.label_names)
        if counts and names and counts != names:
            raise ValueError(f"The record has {counts} class_counts and {names} label_names: give one each per class.")


@dataclass(frozen=True)
class StageRecord:
    """One trained stage. arguments: all that decide the training; changed: those that differ from their defaults.

    metrics, paper: fractions under the names of `HEADLINE`; None where never evaluated, or where the paper has no
    such row. log: a few rows of the training log.
    """

    role: Role
    method: str
    arguments: dict[str, Any] = field(default_factory=dict)
    changed: tuple[str, ...] = ()
    metrics: dict[str, float | None] | None = None
    paper: dict[str, float] | None = None
    wall_time_s: float | None = None
    log: tuple[dict[str, float], ...] = ()

    def __post_init__(self) -> None:
        _make_plain(self, "arguments", "metrics", "paper")
        if self.role not in get_args(Role):
            raise ValueError(f"role is {self.role!r}; a stage is one of {', '.join(get_args(Role))}.")
        for values in (self.metrics or {}, self.paper or {}):
            for name, value in values.items():
                _check_figure(name, value)


@dataclass(frozen=True)
class CardMetadata:
    """What a caller passes to ``create_model_card`` or ``push_to_hub``, as `transformers.Trainer` takes it.

    finetuned_from: the base model; of a folder on this machine the last part alone remains. dataset_ids: of data sets
    on the Hub (``dataset_tags``); datasets: their names in words; dataset_args: their configurations.
    """

    language: str | None = None
    license: str | None = None
    tags: tuple[str, ...] = ()
    finetuned_from: str | None = None
    tasks: tuple[str, ...] = ()
    dataset_ids: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    dataset_args: tuple[str, ...] = ()
    finetuned_locally: bool = False

    @staticmethod
    def of_call(
        language: str | None = None,
        license: str | None = None,
        tags: Names = None,
        finetuned_from: str | None = None,
        tasks: Names = None,
        dataset_tags: Names = None,
        dataset: Names = None,
        dataset_args: Names = None,
    ) -> CardMetadata:
        """From the arguments of `transformers.Trainer.create_model_card`; a local base model keeps its name only."""
        place = Path(finetuned_from or "")
        is_folder = bool(finetuned_from) and (place.exists() or place.is_absolute())
        return CardMetadata(
            language=language,
            license=license,
            tags=_as_tuple(tags),
            finetuned_from=place.name if is_folder else finetuned_from,
            tasks=_as_tuple(tasks),
            dataset_ids=_as_tuple(dataset_tags),
            datasets=_as_tuple(dataset),
            dataset_args=_as_tuple(dataset_args),
            finetuned_locally=is_folder,
        )


CARD_TUPLES = ("tags", "tasks", "dataset_ids", "datasets", "dataset_args")


def _as_tuple(given: Names) -> tuple[str, ...]:
    if given is None:
        return ()
    return (given,) if isinstance(given, str) else tuple(str(name) for name in given if name is not None)


@dataclass(frozen=True)
class RunRecord:
    """Everything that a model card shows. Plain values only, so that run.json gives back an equal record.

    published: the role of the stage whose weights the folder holds. commit: of the package's code, when known.
    paper: where the stages' paper figures stand. license: of the weights, as the Hub names it.
    """

    model: ModelRecord
    data: DataRecord | None = None
    stages: tuple[StageRecord, ...] = ()
    published: Role | None = None
    seed: int | None = None
    commit: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    device: str | None = None
    wall_time_s: float | None = None
    energy_kwh: float | None = None
    command: str | None = None
    date: str | None = None
    paper: str | None = None
    license: str | None = None
    limits: tuple[str, ...] = ()
    citations: tuple[Citation, ...] = ()
    repo_id: str | None = None
    card_metadata: CardMetadata = field(default_factory=CardMetadata)

    def __post_init__(self) -> None:
        _make_plain(self, "versions")
        roles = [stage.role for stage in self.stages]
        if len(set(roles)) != len(roles):
            raise ValueError(f"The record has stages {roles}: each role may stand once.")
        if self.published is not None and self.published not in roles:
            raise ValueError(f"published={self.published!r}, but the record's stages are {roles}: name one of them.")

    @property
    def published_stage(self) -> StageRecord | None:
        """The stage whose weights are published; the last one unless `published` says otherwise."""
        if self.published is None:
            return self.stages[-1] if self.stages else None
        return next(stage for stage in self.stages if stage.role == self.published)

    @property
    def published_metrics(self) -> dict[str, float | None] | None:
        """The figures of the published weights, None when they were never evaluated."""
        stage = self.published_stage
        return None if stage is None else stage.metrics

    def with_repo(self, repo_id: str | None) -> RunRecord:
        """The same record for the repository it is published in."""
        return replace(self, repo_id=repo_id)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, allow_nan=False, ensure_ascii=False) + "\n"

    @staticmethod
    def from_json(text: str) -> RunRecord:
        """The record that `to_json` wrote. ValueError: not such a record, with the field that does not fit."""
        try:
            values = json.loads(text)
            return RunRecord(
                **_with_tuples(values, "limits")
                | {
                    "model": ModelRecord(**_with_tuples(values["model"], "notes")),
                    "data": _data_from(values.get("data")),
                    "stages": tuple(StageRecord(**_with_tuples(s, "changed", "log")) for s in values["stages"]),
                    "citations": tuple(Citation(**citation) for citation in values["citations"]),
                    # Records of earlier releases have none.
                    "card_metadata": CardMetadata(**_with_tuples(values.get("card_metadata") or {}, *CARD_TUPLES)),
                }
            )
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise ValueError(f"This is no run record as RunRecord.save writes it: {error}") from error

    def save(self, folder: str | Path) -> Path:
        """Write run.json into a folder."""
        path = Path(folder) / RECORD_FILE
        path.write_text(self.to_json(), encoding="utf-8")
        return path

    @staticmethod
    def load(folder: str | Path) -> RunRecord:
        """The record of a model folder. ValueError: there is none, or it cannot be read."""
        path = Path(folder) / RECORD_FILE
        if not path.is_file():
            raise ValueError(f"{folder} has no {RECORD_FILE}: write it with RunRecord.save.")
        try:
            return RunRecord.from_json(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def _data_from(values: dict[str, Any] | None) -> DataRecord | None:
    return None if values is None else DataRecord(**_with_tuples(values, "class_counts", "label_names"))


def _with_tuples(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {key: tuple(value) if key in names else value for key, value in values.items()}


def _make_plain(record: Any, *names: str) -> None:
    """Replace mappings by what JSON gives back for them; a frozen dataclass allows it in __post_init__ only."""
    for name in names:
        value = getattr(record, name)
        if value is not None:
            object.__setattr__(record, name, as_plain(value, name))


def as_plain(value: Any, name: str) -> Any:
    """A copy of numbers, strings, lists and dicts as JSON gives it back. ValueError: names what is not plain."""
    try:
        return json.loads(json.dumps(dict(value), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name} must hold plain finite values only (numbers, strings, lists, dicts): {error}"
        ) from None


def _check_figure(name: str, value: float | None) -> None:
    if name not in HEADLINE:
        raise ValueError(f"The figure {name!r} is unknown; a stage's figures are {', '.join(HEADLINE)}.")
    if value is not None and not 0 <= value <= 1:
        raise ValueError(f"{name}={value} must be a fraction of 1: divide per cent by 100.")
