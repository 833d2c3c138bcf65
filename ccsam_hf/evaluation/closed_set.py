"""Closed-set figures of a checkpoint: one pass, then everything from additive sums and per-image columns."""

from dataclasses import asdict
from typing import Any

import numpy as np
from torch import Tensor

from ccsam_hf.evaluation.open_set import FittedScorers
from ccsam_hf.evaluation.options import EvaluationOptions
from ccsam_hf.evaluation.passes import BatchOutput, Columns, Runner
from ccsam_hf.metrics.bootstrap import bootstrap_intervals
from ccsam_hf.metrics.inputs import FloatArray
from ccsam_hf.metrics.label_shift import accuracy_under, prior_replacement, target_distribution
from ccsam_hf.metrics.samples import sample_statistics
from ccsam_hf.metrics.streaming import StreamingMetrics

KEPT = ("label", "prediction", "confidence", "rank", "nll", "brier")


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


def score_images(runner: Runner, dataset: Any, scorers: FittedScorers, title: str) -> Columns:
    """label, prediction and score_NAME of each image, labels not looked at."""

    def measure(output: BatchOutput) -> dict[str, Tensor]:
        prediction = output.logits.argmax(dim=1)
        return {"label": output.labels, "prediction": prediction, **scorers.scores(output)}

    return runner.run(dataset, measure, title)


def closed_set_report(
    metrics: StreamingMetrics, columns: Columns, counts: Tensor, options: EvaluationOptions
) -> dict[str, Any]:
    """The sections "closed_set", "intervals" and "label_shift" of metrics.json."""
    report: dict[str, Any] = {"closed_set": metrics.compute()}
    if options.bootstrap:
        intervals = bootstrap_intervals(
            columns["prediction"],
            columns["label"],
            counts,
            options.thresholds,
            options.bootstrap,
            options.level,
            options.seed,
        )
        report["intervals"] = {"replicates": options.bootstrap, "level": options.level, **intervals}
    if options.targets:
        report["label_shift"] = {name: shifted_figures(name, columns, counts) for name in options.targets}
    return report


def shifted_figures(name: str, columns: Columns, counts: Tensor) -> dict[str, float | None]:
    """Expected accuracy under a target distribution: predictions as they are, and under the target's prior."""
    target = target_distribution(name, counts)
    labels = columns["label"]
    images = np.bincount(labels, minlength=len(counts))

    def accuracy(predictions: np.ndarray | None) -> float | None:
        if predictions is None:
            return None
        return accuracy_under(np.bincount(labels[predictions == labels], minlength=len(counts)), images, target)

    return {
        "accuracy": accuracy(columns["prediction"]),
        "accuracy_with_target_prior": accuracy(columns.get(f"prediction_{name}")),
    }


def option_record(options: EvaluationOptions) -> dict[str, Any]:
    """The options that decide figures, without those that only decide how they are computed."""
    record = asdict(options)
    for name in ("batch_size", "num_workers", "progress"):
        del record[name]
    return record | {"thresholds": options.thresholds.describe(), "targets": list(options.targets)}
