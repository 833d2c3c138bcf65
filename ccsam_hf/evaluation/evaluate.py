"""`evaluate_model` and `evaluate_checkpoint`: from a checkpoint and a split to every figure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from accelerate import Accelerator
from torch import Tensor
from transformers import default_data_collator

from ..data.counts import class_names
from ..inference import load_classifier
from ..losses import prior_correction
from ..metrics.accuracy import group_confusion, per_class_table
from ..metrics.inputs import FloatArray
from ..metrics.label_shift import prior_replacement, target_distribution
from ..metrics.streaming import StreamingMetrics, sample_statistics
from ..shots import ShotThresholds
from .checkpoints import (
    ModelSource,
    evaluated_model,
    match_labels,
    shown_names,
    source_distribution,
    training_counts,
)
from .image_split import ImageSplit, SplitOptions, load_split, read_counts
from .open_recognition import (
    OPEN_SCORERS,
    FittedScorers,
    HoldOut,
    OpenSet,
    OpenSetOptions,
    fit_scorers,
    join_open,
    load_open_images,
    open_set_report,
    score_images,
)
from .plots import draw_figures, group_bars_figure
from .results import (
    METRICS_FILE,
    Evaluation,
    Predictions,
    closed_set_report,
    compare_predictions,
    option_record,
    paired_table,
    summary_table,
    write_json,
)
from .runner import BatchOutput, Collate, Columns, EvaluationOptions, Runner

KEPT = ("label", "prediction", "confidence", "rank", "nll", "brier")
_DEFAULT, _OPEN_DEFAULT = EvaluationOptions(), OpenSetOptions()


def evaluate_model(
    model: ModelSource,
    dataset: Any,
    *,
    label_names: Sequence[str] | None = None,
    class_counts: Tensor | Sequence[int] | None = None,
    options: EvaluationOptions | None = None,
    open_set: OpenSet | None = None,
    output_dir: str | Path | None = None,
    accelerator: Accelerator | None = None,
    image_column: str = "image",
    label_column: str = "label",
    collate: Collate = default_data_collator,
    about: Mapping[str, Any] | None = None,
) -> Evaluation:
    """Evaluate a classifier on a split, on as many processes as Accelerate was started with.

    Figures do not depend on the number of processes; no logits are stored or gathered.

    Args:
        model: a folder, a Hub id or a `Classifier`, whose own test transform is applied to the raw images of every
            data set; or a transformers model, with data sets whose items are its inputs and "labels".
        dataset: map-style; raw images have the columns `image_column` and `label_column`.
        label_names: class names in the data set's label order, matched by name with the checkpoint's; by default
            those of the label column, where it has names.
        class_counts: training counts in the data set's label order; `config.class_counts` by default.
        about: plain values to record (which model, which split).
        output_dir: where the main process writes metrics.json, per_class.csv, predictions.safetensors and figures/.

    Raises:
        ValueError: an empty split, labels or names unknown to the checkpoint, NaN logits, or missing class counts.
    """
    options = options or EvaluationOptions()
    accelerator = accelerator or Accelerator()
    checkpoint = evaluated_model(model, accelerator.device)
    names = label_names if label_names is not None else class_names(dataset, label_column)
    mapping = match_labels(names, checkpoint.label_names, checkpoint.num_classes)
    counts = training_counts(class_counts, checkpoint.class_counts, mapping, checkpoint.num_classes)
    runner = Runner(
        checkpoint.model.to(accelerator.device),
        accelerator,
        mapping,
        prior_correction(counts, options.logit_adjustment),
        options.batch_size,
        options.num_workers,
        options.progress,
        collate,
    )

    def inputs(data: Any) -> Any:
        return checkpoint.inputs(data, image_column, label_column)

    prepared = None if open_set is None else open_set.as_inputs(inputs)
    source = source_distribution(options.source_prior or checkpoint.training_prior, counts)
    with runner:
        found = _run(runner, inputs(dataset), counts, options, prepared, source)
    shown = shown_names(checkpoint.label_names, names, checkpoint.num_classes)
    evaluation = _evaluation(found, counts, shown, options, open_set, dict(about or {}))
    if output_dir is not None and accelerator.is_main_process:
        evaluation.save(output_dir)
        draw_figures(evaluation, Path(output_dir) / "figures")
    return evaluation


@dataclass(frozen=True)
class _Found:
    """What the passes over the data delivered."""

    sums: StreamingMetrics
    columns: Columns
    opened: Columns
    holdout: HoldOut | None


def _run(
    runner: Runner,
    dataset: Any,
    counts: Tensor,
    options: EvaluationOptions,
    open_set: OpenSet | None,
    source: FloatArray | None,
) -> _Found:
    scorers = FittedScorers(())
    if open_set is not None:
        scorers = fit_scorers(runner, open_set.options, open_set.training, len(counts))
    sums, columns = measure_closed_set(runner, dataset, counts, options, scorers, source)
    if open_set is None:
        return _Found(sums, columns, {}, None)
    opened = join_open(columns, score_images(runner, open_set.images, scorers, "open images"))
    return _Found(sums, columns, opened, _holdout(runner, open_set, scorers))


def _evaluation(
    found: _Found,
    counts: Tensor,
    names: list[str],
    options: EvaluationOptions,
    open_set: OpenSet | None,
    about: dict[str, Any],
) -> Evaluation:
    columns = found.columns
    metrics = {
        "about": about,
        "options": option_record(options),
        **closed_set_report(found.sums, columns, counts, options),
    }
    if open_set is not None:
        metrics["options"]["open_set"] = asdict(open_set.options)
        metrics["open_set"] = open_set_report(found.opened, counts, options.thresholds, open_set.options, found.holdout)
    answers = (columns["prediction"], columns["label"], counts)
    kept = {name: values for name, values in columns.items() if not name.startswith("score_")}
    return Evaluation(
        metrics=metrics,
        per_class=per_class_table(*answers, names, options.thresholds),
        predictions=Predictions(kept, counts.tolist(), names),
        reliability=found.sums.reliability(),
        group_confusion=group_confusion(*answers, options.thresholds),
        open_columns=found.opened,
    )


def _holdout(runner: Runner, open_set: OpenSet, scorers: FittedScorers) -> HoldOut | None:
    if open_set.holdout is None:
        return None
    known = score_images(runner, open_set.holdout, scorers, "hold-out")
    if open_set.open_holdout is None:
        return HoldOut(known)
    return HoldOut(known, score_images(runner, open_set.open_holdout, scorers, "open hold-out"))


def measure_closed_set(
    runner: Runner,
    dataset: Any,
    counts: Tensor,
    options: EvaluationOptions,
    scorers: FittedScorers,
    source: FloatArray | None,
) -> tuple[StreamingMetrics, Columns]:
    """Run over the split: sums of all processes, and per-image columns.

    Beside `KEPT`, prediction_TARGET for each shifted test set where the class prior that the logits presume is known
    (`source`; the target's takes its place) and score_NAME for each open-set scorer.
    """
    metrics = StreamingMetrics(counts, options.thresholds, options.calibration_bins)
    targets = {name: target_distribution(name, counts) for name in options.targets}
    # The runner has shifted the logits by the logit adjustment, which a target's prior replaces.
    bonuses = {n: prior_replacement(t, source) - runner.shift for n, t in targets.items() if source is not None}

    def measure(output: BatchOutput) -> dict[str, Tensor]:
        statistics = sample_statistics(output.logits, output.labels)
        metrics.add(statistics)
        columns = {name: getattr(statistics, name) for name in KEPT}
        for name, bonus in bonuses.items():
            columns[f"prediction_{name}"] = (output.logits + bonus.to(output.logits.device)).argmax(dim=1)
        return columns | scorers.scores(output)

    columns = runner.run(dataset, measure, "evaluate")
    metrics.load_state(runner.sum(metrics.state()))
    return metrics, columns


@dataclass(frozen=True, kw_only=True)
class CheckpointEvaluation(SplitOptions):
    """What `evaluate_checkpoint` does. Options of `OpenSetOptions` bear its names, with "open_" before them.

    `split` is the test set by default; a folder of class folders is evaluated whole.
    """

    model: str = field(default="", metadata={"help": "Folder or Hub id of this package, timm or transformers."})
    output_dir: str = field(
        default="", metadata={"help": "Folder that metrics.json, per_class.csv, predictions and figures go to."}
    )
    class_counts: str | None = field(
        default=None,
        metadata={
            "help": "JSON list of training counts in label order, or {name: count}, for a model that records none."
        },
    )
    trust_remote_code: bool = field(default=False, metadata={"help": "Run the Python file that a checkpoint ships."})
    batch_size: int = field(default=_DEFAULT.batch_size, metadata={"help": "Images in one pass."})
    num_workers: int = field(default=0, metadata={"help": "Processes that decode images."})
    calibration_bins: int = field(
        default=_DEFAULT.calibration_bins, metadata={"help": "Bins of the calibration error."}
    )
    logit_adjustment: float = field(default=_DEFAULT.logit_adjustment, metadata={"help": "Tau; 0: logits as they are."})
    targets: list[str] = field(
        default_factory=list, metadata={"help": "Shifted test sets: forward-R, uniform, backward-R."}
    )
    source_prior: Literal["train", "uniform"] | None = field(
        default=None, metadata={"help": "Class prior that the logits presume; default: as the checkpoint records."}
    )
    bootstrap: int = field(default=_DEFAULT.bootstrap, metadata={"help": "Replicates of the intervals; 0: none."})
    level: float = field(default=_DEFAULT.level, metadata={"help": "Coverage of the intervals."})
    seed: int = field(default=_DEFAULT.seed, metadata={"help": "Seed of the bootstrap."})
    compare_with: str | None = field(
        default=None,
        metadata={"help": "Output folder of another checkpoint on the same split: differences and p-values."},
    )
    open_dataset: str | None = field(
        default=None, metadata={"help": "Images of unknown classes: benchmark name, list (.txt), folder or Hub id."}
    )
    open_data_dir: str | None = field(default=None, metadata={"help": "Folder that the list's paths start from."})
    open_split: str | None = field(
        default=None, metadata={"help": "Split of that folder or Hub data set; default: test, or the only one."}
    )
    open_scorers: list[str] = field(
        default_factory=lambda: list(_OPEN_DEFAULT.scorers), metadata={"help": f"Among {', '.join(OPEN_SCORERS)}."}
    )
    open_threshold: float = field(
        default=_OPEN_DEFAULT.threshold, metadata={"help": "Fixed, for scores that are probabilities."}
    )
    open_use_validation: bool = field(default=False, metadata={"help": "Choose thresholds on the validation set."})
    open_holdout: str | None = field(
        default=None, metadata={"help": "Open images, beside that validation set, to choose thresholds by F."}
    )
    open_holdout_recall: float = field(
        default=_OPEN_DEFAULT.holdout_recall, metadata={"help": "Share of known hold-out images to accept."}
    )
    open_tail_size: int = field(
        default=_OPEN_DEFAULT.tail_size, metadata={"help": "Distances that OpenMax fits each tail on."}
    )
    open_alpha: int = field(default=_OPEN_DEFAULT.alpha, metadata={"help": "Classes that OpenMax revises."})

    def __post_init__(self) -> None:
        missing = [f"--{name}" for name in ("model", "output_dir") if not getattr(self, name)]
        if missing:
            raise ValueError(f"{', '.join(missing)} must be given.")
        if self.open_dataset is None:
            default = {item.name: item for item in fields(self) if item.name.startswith("open_")}
            useless = [f"--{name}" for name, item in default.items() if getattr(self, name) != _default_of(item)]
            if useless:
                raise ValueError(f"{', '.join(useless)} without effect: pass --open_dataset, or leave out.")

    def evaluation_options(self, thresholds: ShotThresholds) -> EvaluationOptions:
        """The options of `evaluate_model`."""
        same = [item.name for item in fields(EvaluationOptions) if hasattr(self, item.name)]
        chosen = {name: getattr(self, name) for name in same if name not in ("thresholds", "targets")}
        return EvaluationOptions(thresholds=thresholds, targets=tuple(self.targets), **chosen)

    def open_set(self, data: ImageSplit) -> OpenSet | None:
        """The images of unknown classes, and what scorers and thresholds are fitted on."""
        if self.open_dataset is None:
            return None
        return OpenSet(
            load_open_images(self.open_dataset, self.open_data_dir, self.open_split),
            training=data.training,
            holdout=data.required_validation if self.open_use_validation else None,
            open_holdout=None if self.open_holdout is None else load_open_images(self.open_holdout),
            options=OpenSetOptions(
                tuple(self.open_scorers),
                self.open_threshold,
                self.open_holdout_recall,
                self.open_tail_size,
                self.open_alpha,
            ),
        )


def _default_of(item: Any) -> Any:
    return item.default_factory() if callable(item.default_factory) else item.default


def evaluate_checkpoint(options: CheckpointEvaluation, accelerator: Accelerator | None = None) -> Evaluation:
    """Evaluate a checkpoint on a benchmark or on one's own images; the main process writes the files.

    The checkpoint's own preprocessing is applied. Classes are matched by name, so that their order may differ.

    Args:
        options: checkpoint, data, figures.
        accelerator: default: a new one, on as many processes as Accelerate was started with.

    Raises:
        ValueError: what `load_split`, `load_classifier` and `evaluate_model` refuse.
    """
    accelerator = accelerator or Accelerator()
    data = load_split(options, "test")
    model = load_classifier(options.model, device=accelerator.device, trust_remote_code=options.trust_remote_code)
    if options.class_counts is not None:
        model = replace(model, class_counts=read_counts(options.class_counts, model.label_names))
    evaluation = evaluate_model(
        model,
        data.images,
        label_names=data.label_names,
        class_counts=data.class_counts if model.class_counts is None else None,
        options=options.evaluation_options(data.thresholds),
        open_set=options.open_set(data),
        output_dir=options.output_dir,
        accelerator=accelerator,
        about={
            "model": options.model,
            "benchmark": options.benchmark,
            "split": data.split,
            "data": data.settings,
            "open_dataset": options.open_dataset,
        },
    )
    if options.compare_with is not None and accelerator.is_main_process:
        evaluation = replace(evaluation, comparison=_compare(evaluation, options, options.compare_with))
    return evaluation


def evaluation_text(evaluation: Evaluation, options: CheckpointEvaluation) -> str:
    """What the command prints: the short table, the comparison, and where the files lie."""
    lines = [summary_table(evaluation.metrics)]
    if evaluation.comparison:
        lines.append(f"\nthis checkpoint - {options.compare_with}\n{paired_table(evaluation.comparison)}")
    return "\n".join([*lines, f"Written to {options.output_dir}"])


def _compare(evaluation: Evaluation, options: CheckpointEvaluation, other: str) -> dict[str, Any]:
    """Paired differences to another evaluation's predictions, with their file and figure."""
    thresholds = ShotThresholds(**evaluation.metrics["options"]["thresholds"])
    theirs = Predictions.load(other)
    found = compare_predictions(evaluation.predictions, theirs, thresholds, level=options.level, seed=options.seed)
    plain = {name: None if figure is None else asdict(figure) for name, figure in found.items()}
    write_json(Path(options.output_dir) / "comparison.json", {"with": other, **plain})
    metrics = Path(other) / METRICS_FILE
    if metrics.is_file():
        names = ["/".join(Path(folder).parts[-2:]) for folder in (options.output_dir, other)]
        stored = json.loads(metrics.read_text(encoding="utf-8"))
        runs = {f"this: {names[0]}": evaluation.metrics, f"other: {names[1]}": stored}
        group_bars_figure(runs, Path(options.output_dir) / "figures" / "groups_compared")
    return found
