"""Bootstrap intervals, the paired test, shifted test sets and logit adjustment."""

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from ccsam_hf.losses import prior_correction
from ccsam_hf.metrics.label_shift import accuracy_under, prior_replacement, target_distribution
from ccsam_hf.metrics.uncertainty import bootstrap_intervals, paired_test
from ccsam_hf.shots import ShotThresholds

RNG = np.random.default_rng(0)
COUNTS = [500, 300, 50, 10, 2]
LABELS = RNG.integers(0, 5, 200)
FIRST = np.where(RNG.random(200) < 0.8, LABELS, RNG.integers(0, 5, 200))
SECOND = np.where(RNG.random(200) < 0.65, LABELS, RNG.integers(0, 5, 200))


def drawn_again(values: np.ndarray, figure, replicates: int = 4000) -> np.ndarray:
    rng = np.random.default_rng(1)
    picks = rng.integers(0, len(LABELS), (replicates, len(LABELS)))
    return np.quantile([figure(values[pick], LABELS[pick]) for pick in picks], [0.025, 0.975])


def balanced(hits: np.ndarray, labels: np.ndarray) -> float:
    return np.mean([hits[labels == c].mean() for c in np.unique(labels)])


def test_intervals_are_those_of_drawing_images_again() -> None:
    intervals = bootstrap_intervals(FIRST, LABELS, COUNTS, replicates=4000)
    hits = (FIRST == LABELS).astype(float)
    assert intervals["accuracy"] == pytest.approx(drawn_again(hits, lambda h, _: h.mean()), abs=0.006)
    assert intervals["balanced_accuracy"] == pytest.approx(drawn_again(hits, balanced), abs=0.006)
    few = drawn_again(hits, lambda h, y: balanced(h[y >= 3], y[y >= 3]))
    assert intervals["few"] == pytest.approx(few, abs=0.008)


def test_intervals_repeat_and_absent_groups_are_none() -> None:
    first = bootstrap_intervals(FIRST, LABELS, [500] * 5, replicates=50, seed=3)
    assert first == bootstrap_intervals(FIRST, LABELS, [500] * 5, replicates=50, seed=3)
    assert first["few"] is first["medium"] is None


def test_certain_answers_have_no_width() -> None:
    assert bootstrap_intervals(LABELS, LABELS, COUNTS, replicates=20)["accuracy"] == (1.0, 1.0)


def test_paired_test_is_mcnemar_for_the_overall_accuracy() -> None:
    figures = paired_test(FIRST, SECOND, LABELS, COUNTS)
    only_first = int(np.sum((FIRST == LABELS) & (SECOND != LABELS)))
    only_second = int(np.sum((FIRST != LABELS) & (SECOND == LABELS)))
    exact = binomtest(only_first, only_first + only_second).pvalue
    assert figures["accuracy"].difference == pytest.approx((FIRST == LABELS).mean() - (SECOND == LABELS).mean())
    assert figures["accuracy"].p_value == pytest.approx(exact, abs=0.01)
    low, high = figures["accuracy"].interval
    differences = (FIRST == LABELS).astype(float) - (SECOND == LABELS)
    assert (low, high) == pytest.approx(drawn_again(differences, lambda d, _: d.mean()), abs=0.006)


def test_paired_test_of_a_group_is_the_sign_flip_test() -> None:
    weak = np.where(np.arange(200) % 3 == 0, FIRST, SECOND)
    figures = paired_test(FIRST, weak, LABELS, COUNTS, ShotThresholds())
    weight = np.where(LABELS >= 3, 1 / (2 * np.bincount(LABELS)[LABELS]), 0)
    terms = weight * ((FIRST == LABELS).astype(float) - (weak == LABELS))
    flipped = (np.random.default_rng(2).choice([-1, 1], (20_000, 200)) * terms).sum(1)
    expected = np.mean(np.abs(flipped) >= abs(terms.sum()) - 1e-12)
    assert figures["few"].difference == pytest.approx(terms.sum())
    assert figures["few"].p_value == pytest.approx(expected, abs=0.015)


def test_a_checkpoint_does_not_differ_from_itself() -> None:
    figures = paired_test(FIRST, FIRST, LABELS, [500] * 5, replicates=20)
    assert (figures["accuracy"].difference, figures["accuracy"].p_value) == (0.0, 1.0)
    assert figures["few"] is None


def test_bad_bootstrap_input() -> None:
    with pytest.raises(ValueError, match="at least one replicate"):
        bootstrap_intervals(FIRST, LABELS, COUNTS, replicates=0)
    with pytest.raises(ValueError, match="199 predictions for 200 references"):
        paired_test(FIRST, SECOND[:199], LABELS, COUNTS)


def test_target_distributions() -> None:
    counts = [5, 100, 40]  # ranks 2, 0, 1
    np.testing.assert_allclose(target_distribution("uniform", counts), [1 / 3] * 3)
    forward, backward = target_distribution("forward-25", counts), target_distribution("backward-25", counts)
    np.testing.assert_allclose(forward, np.array([1, 25, 5]) / 31)
    np.testing.assert_allclose(backward, np.array([25, 1, 5]) / 31)
    assert target_distribution("forward-10", [7]).tolist() == [1.0]


def test_accuracy_under_a_target_is_the_weighted_mean_of_images() -> None:
    correct, images = np.array([4, 1, 0]), np.array([8, 2, 5])
    assert accuracy_under(correct, images, images / 15) == pytest.approx(5 / 15)
    assert accuracy_under(correct, images, np.array([0.5, 0.25, 0.25])) == pytest.approx(0.375)
    # A class without test images passes its share on; if no class is left there is no figure.
    assert accuracy_under(correct, np.array([8, 0, 0]), np.array([0.5, 0.25, 0.25])) == 0.5
    assert accuracy_under(correct, np.array([8, 0, 0]), np.array([0.0, 1.0, 0.0])) is None


def test_logit_adjustment_divides_by_the_prior() -> None:
    logits = torch.randn(6, 5, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    adjusted = (logits + prior_correction(COUNTS, 1.0)).softmax(1)
    prior = torch.tensor(COUNTS) / sum(COUNTS)
    expected = logits.softmax(1) / prior
    torch.testing.assert_close(adjusted, expected / expected.sum(1, keepdim=True))
    torch.testing.assert_close(prior_correction(COUNTS, 0.5), prior_correction(COUNTS, 1.0) / 2)
    assert prior_correction([5, 0], 0.0).tolist() == [0.0, 0.0]


def test_replacing_the_training_prior_by_the_uniform_one_is_logit_adjustment() -> None:
    prior, uniform = np.array(COUNTS) / sum(COUNTS), np.full(5, 0.2)
    torch.testing.assert_close(prior_replacement(uniform, prior), prior_correction(COUNTS, 1.0) + np.log(0.2))
    assert prior_replacement(prior, prior).tolist() == [0.0] * 5
    assert prior_replacement(np.array([0.0, 1.0]), np.array([0.5, 0.5]))[0] == -np.inf
    with pytest.raises(ValueError, match="presume is 0 for class 1"):
        prior_replacement(uniform[:2], np.array([1.0, 0.0]))


@pytest.mark.parametrize("name", ["forward", "sideways-5", "forward-0.5", "uniform-3"])
def test_unknown_targets_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="use 'uniform', 'forward-R' or 'backward-R'"):
        target_distribution(name, COUNTS)


def test_logit_adjustment_of_an_unseen_class_is_refused() -> None:
    with pytest.raises(ValueError, match="Class 1 has no training image"):
        prior_correction([5, 0], 1.0)
    with pytest.raises(ValueError, match="finite number"):
        prior_correction([5, 5], float("nan"))
