"""`evaluate_model`: from a checkpoint and a split to every figure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import Tensor
from transformers import default_data_collator

from ccsam_hf.data.counts import class_names
from ccsam_hf.evaluation.closed_set import closed_set_report, measure_closed_set, option_record, score_images
from ccsam_hf.evaluation.figures import draw_figures
from ccsam_hf.evaluation.labels import match_labels, shown_names, training_counts
from ccsam_hf.evaluation.open_set import FittedScorers, HoldOut, fit_scorers, join_open, open_set_report
from ccsam_hf.evaluation.options import EvaluationOptions, OpenSetOptions
from ccsam_hf.evaluation.passes import Collate, Columns, Runner
from ccsam_hf.evaluation.result import Evaluation, Predictions
from ccsam_hf.evaluation.subject import ModelSource, OpenImages, source_distribution, subject_of
from ccsam_hf.metrics.inputs import FloatArray
from ccsam_hf.metrics.label_shift import prior_correction
from ccsam_hf.metrics.per_class import group_confusion, per_class_table
from ccsam_hf.metrics.streaming import StreamingMetrics


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

    def as_inputs(self, inputs: Callable[[Any], Any]) -> "OpenSet":
        """The same with each data set as model inputs, open images labelled -1."""
        return replace(
            self,
            images=OpenImages(inputs(self.images)),
            training=None if self.training is None else inputs(self.training),
            holdout=None if self.holdout is None else inputs(self.holdout),
            open_holdout=None if self.open_holdout is None else OpenImages(inputs(self.open_holdout)),
        )


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
    subject = subject_of(model, accelerator.device)
    names = label_names if label_names is not None else class_names(dataset, label_column)
    mapping = match_labels(names, subject.label_names, subject.num_classes)
    counts = training_counts(class_counts, subject.class_counts, mapping, subject.num_classes)
    runner = Runner(
        subject.model.to(accelerator.device),
        accelerator,
        mapping,
        prior_correction(counts, options.logit_adjustment),
        options.batch_size,
        options.num_workers,
        options.progress,
        collate,
    )

    def inputs(data: Any) -> Any:
        return subject.inputs(data, image_column, label_column)

    prepared = None if open_set is None else open_set.as_inputs(inputs)
    source = source_distribution(options.source_prior or subject.training_prior, counts)
    with runner:
        found = _run(runner, inputs(dataset), counts, options, prepared, source)
    shown = shown_names(subject.label_names, names, subject.num_classes)
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
