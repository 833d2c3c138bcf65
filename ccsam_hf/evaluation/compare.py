"""Two checkpoints on the same images, from their saved predictions."""

from ccsam_hf.evaluation.result import Predictions
from ccsam_hf.metrics.bootstrap import PairedFigure, paired_test
from ccsam_hf.shots import ShotThresholds


def compare_predictions(
    first: Predictions,
    second: Predictions,
    thresholds: ShotThresholds | None = None,
    replicates: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, PairedFigure | None]:
    """Difference first - second of each accuracy with interval and p-value, see `paired_test`.

    Raises:
        ValueError: the predictions are not of the same images in the same order, or of other classes or counts.
    """
    if first.label_names != second.label_names or first.class_counts != second.class_counts:
        raise ValueError(
            "The two checkpoints have other label names or training counts, so their predictions cannot be paired; "
            "compare checkpoints of one benchmark."
        )
    labels = first.columns["label"]
    if labels.tolist() != second.columns["label"].tolist():
        raise ValueError(
            f"The two predictions are of different images ({len(labels)} and {len(second.columns['label'])}, or in "
            "another order); evaluate both checkpoints on the same split."
        )
    answers = (first.columns["prediction"], second.columns["prediction"])
    return paired_test(*answers, labels, first.class_counts, thresholds, replicates, level, seed)
