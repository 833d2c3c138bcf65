"""Calibration and all closed-set figures: against scikit-learn, slow references, and additivity."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, f1_score, log_loss, top_k_accuracy_score

from ccsam_hf.metrics.calibration import bin_confidences, bin_probabilities, expected_calibration_error
from ccsam_hf.metrics.streaming import StreamingMetrics, sample_statistics
from ccsam_hf.shots import ShotThresholds

COUNTS = [500, 300, 100, 50, 20, 5, 3, 1]
GENERATOR = torch.Generator().manual_seed(0)
LOGITS = 2 * torch.randn(203, 8, generator=GENERATOR)
LABELS = torch.randint(0, 7, (203,), generator=GENERATOR)  # class 7 has no test image
LOGITS[torch.arange(203), LABELS] += 1.5
PROBABILITIES = LOGITS.double().softmax(1).numpy()


def computed(batches: list[int], bins: int = 15) -> dict:
    metrics = StreamingMetrics(COUNTS, ShotThresholds(), bins)
    for logits, labels in zip(LOGITS.split(batches), LABELS.split(batches), strict=True):
        metrics.update(logits, labels)
    return metrics.compute()


def slow_ece(confidence: np.ndarray, hits: np.ndarray, bins: int) -> float:
    total = 0.0
    for m in range(bins):
        low, high = m / bins, (m + 1) / bins
        inside = [i for i, c in enumerate(confidence) if low < c <= high or (m == 0 and c == 0)]
        if inside:
            total += abs(sum(hits[i] for i in inside) - sum(confidence[i] for i in inside))
    return total / len(confidence)


def test_accuracies_against_scikit_learn() -> None:
    figures, labels, guesses = computed([203]), LABELS.numpy(), PROBABILITIES.argmax(1)
    assert figures["accuracy"] == pytest.approx((labels == guesses).mean())
    assert figures["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, guesses))
    assert figures["macro_f1"] == pytest.approx(f1_score(labels, guesses, labels=range(7), average="macro"))
    expected = top_k_accuracy_score(labels, PROBABILITIES, k=5, labels=range(8))
    assert figures["top5"]["accuracy"] == pytest.approx(expected)
    assert figures["group_sizes"] == {"many": 2, "medium": 3, "few": 3}
    assert figures["thresholds"] == {"many": 100, "few": 20, "boundaries": "strict"}
    assert (figures["images"], figures["classes"], figures["classes_with_test_images"]) == (203, 8, 7)


def test_calibration_against_scikit_learn_and_a_slow_reference() -> None:
    calibration, labels = computed([203])["calibration"], LABELS.numpy()
    hits, confidence = PROBABILITIES.argmax(1) == labels, PROBABILITIES.max(1)
    overall = calibration["overall"]
    assert overall["nll"] == pytest.approx(log_loss(labels, PROBABILITIES, labels=range(8)), abs=1e-9)
    brier = ((PROBABILITIES - np.eye(8)[labels]) ** 2).sum(1).mean()
    assert overall["brier"] == pytest.approx(brier, abs=1e-9)
    assert overall["ece"] == pytest.approx(slow_ece(confidence, hits, 15), abs=1e-9)
    classwise = [slow_ece(PROBABILITIES[:, c], labels == c, 15) for c in range(8)]
    assert overall["classwise_ece"] == pytest.approx(np.mean(classwise), abs=1e-9)
    few = labels >= 5
    assert calibration["few"]["ece"] == pytest.approx(slow_ece(confidence[few], hits[few], 15), abs=1e-9)
    assert calibration["few"]["classwise_ece"] == pytest.approx(np.mean(classwise[5:]), abs=1e-9)
    nll = -np.log(PROBABILITIES[few, labels[few]]).mean()
    assert calibration["few"]["nll"] == pytest.approx(nll, abs=1e-9)


@pytest.mark.parametrize("batches", [[64, 64, 64, 11], [1] * 203, [200, 3]])
def test_batches_change_nothing(batches: list[int]) -> None:
    assert computed(batches) == computed([203])


def test_merged_parts_are_the_whole_in_any_order() -> None:
    whole, parts = computed([203]), [StreamingMetrics(COUNTS, ShotThresholds()) for _ in range(3)]
    for part, logits, labels in zip(parts, LOGITS.split([100, 100, 3]), LABELS.split([100, 100, 3]), strict=True):
        part.update(logits, labels)
    total = StreamingMetrics(COUNTS, ShotThresholds())
    for part in reversed(parts):
        total.merge(part)
    assert total.compute() == whole
    loaded = StreamingMetrics(COUNTS, ShotThresholds())
    loaded.load_state(total.state())
    assert loaded.compute() == whole


def test_group_without_images_is_none_throughout() -> None:
    metrics = StreamingMetrics([500, 50, 1], ShotThresholds())
    metrics.update(torch.eye(3)[:2], torch.tensor([0, 1]))
    figures = metrics.compute()
    assert figures["few"] is None
    assert figures["calibration"]["few"]["ece"] is figures["calibration"]["few"]["nll"] is None
    assert figures["top5"] is None  # five classes or fewer: 1 by construction


def test_one_class() -> None:
    metrics = StreamingMetrics([7], ShotThresholds())
    metrics.update(torch.zeros(2, 1), torch.tensor([0, 0]))
    figures = metrics.compute()
    assert figures["accuracy"] == figures["few"] == figures["macro_f1"] == figures["harmonic_mean"] == 1.0
    assert figures["calibration"]["overall"] == {"ece": 0.0, "classwise_ece": 0.0, "nll": 0.0, "brier": 0.0}


def test_bins_are_closed_on_the_right() -> None:
    confidence = torch.tensor([0.0, 0.25, 0.2500001, 0.5, 1.0], dtype=torch.double)
    histogram = bin_confidences(confidence, torch.tensor([0, 1, 0, 1, 1]), bins=4)
    assert histogram.count.tolist() == [[2, 2, 0, 1]]
    assert histogram.hits.tolist() == [[1, 1, 0, 1]]
    curve = histogram.curve()
    assert curve["upper_edge"] == [0.25, 0.5, 0.75, 1.0]
    assert curve["accuracy"] == [0.5, 0.5, None, 1.0]
    assert curve["confidence"] == pytest.approx([0.125, 0.37500005, None, 1.0])


def test_perfectly_calibrated_has_no_error() -> None:
    histogram = bin_confidences(torch.full((4,), 0.75), torch.tensor([1, 1, 1, 0]))
    assert expected_calibration_error(histogram) == 0.0
    assert expected_calibration_error(bin_confidences(torch.zeros(0), torch.zeros(0))) is None


def test_ties_rank_like_argmax() -> None:
    statistics = sample_statistics(torch.zeros(3, 8), torch.tensor([0, 4, 7]))
    assert statistics.rank.tolist() == [0, 4, 7]
    assert statistics.prediction.tolist() == [0, 0, 0]
    assert statistics.nll.tolist() == pytest.approx([math.log(8)] * 3)
    assert statistics.brier.tolist() == pytest.approx([7 / 8] * 3)


def test_huge_margins_stay_finite() -> None:
    statistics = sample_statistics(torch.tensor([[3e4, -3e4]]), torch.tensor([1]))
    assert statistics.nll.tolist() == [6e4]
    assert statistics.brier.tolist() == [2.0]


def test_classwise_histogram_counts_every_probability() -> None:
    histogram = bin_probabilities(torch.tensor([[0.3, 0.7]]), torch.tensor([0]), bins=2)
    assert histogram.count.tolist() == [[1, 0], [0, 1]]
    assert histogram.hits.tolist() == [[1, 0], [0, 0]]


def test_bad_input() -> None:
    metrics = StreamingMetrics([5, 5], ShotThresholds())
    with pytest.raises(ValueError, match="the split is empty"):
        metrics.compute()
    with pytest.raises(ValueError, match=r"hold NaN or infinity.*float32"):
        metrics.update(torch.tensor([[0.0, float("nan")]]), torch.tensor([0]))
    with pytest.raises(ValueError, match=r"shape \[1, 3\] for 2 class_counts"):
        metrics.update(torch.zeros(1, 3), torch.tensor([0]))
    with pytest.raises(ValueError, match=r"span 0..2 but the checkpoint knows classes 0..1"):
        metrics.update(torch.zeros(2, 2), torch.tensor([0, 2]))
    with pytest.raises(ValueError, match="bins is 0"):
        bin_confidences(torch.zeros(1), torch.zeros(1), bins=0)
