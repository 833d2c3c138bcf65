"""Summaries of class accuracies, F1 and the per-class table."""

import numpy as np
import pytest
from scipy.stats import gmean, hmean
from sklearn.metrics import confusion_matrix, f1_score, precision_recall_fscore_support

from ccsam_hf.metrics.accuracy import accuracy_summary, f1_scores, group_confusion, most_confused, per_class_table
from ccsam_hf.shots import ShotThresholds

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 7, 400)
PREDICTIONS = np.where(RNG.random(400) < 0.5, LABELS, RNG.integers(0, 8, 400))
COUNTS = [900, 400, 100, 50, 20, 8, 2, 1]  # class 7 has no test image


def test_means_against_scipy() -> None:
    accuracies = RNG.uniform(0.1, 1, 25)
    summary = accuracy_summary(np.append(accuracies, np.nan))
    assert summary["harmonic_mean"] == pytest.approx(hmean(accuracies))
    assert summary["geometric_mean"] == pytest.approx(gmean(accuracies))
    assert summary["worst_class"] == accuracies.min()
    assert summary["worst_decile"] == pytest.approx(np.sort(accuracies)[:3].mean())  # ceil(25 / 10)


def test_one_class_never_right_makes_both_means_zero() -> None:
    summary = accuracy_summary(np.array([0.0, 1.0]))
    assert summary == {"harmonic_mean": 0.0, "geometric_mean": 0.0, "worst_class": 0.0, "worst_decile": 0.0}


def test_one_class_and_none() -> None:
    assert set(accuracy_summary(np.array([0.25])).values()) == {0.25}
    assert set(accuracy_summary(np.array([np.nan])).values()) == {None}


def test_f1_against_scikit_learn() -> None:
    total, predicted = np.bincount(LABELS, minlength=8), np.bincount(PREDICTIONS, minlength=8)
    scores = f1_scores(np.bincount(LABELS[LABELS == PREDICTIONS], minlength=8), total, predicted)
    expected = f1_score(LABELS, PREDICTIONS, labels=range(7), average=None)
    np.testing.assert_allclose(scores[:7], expected)
    assert np.isnan(scores[7])


def test_table_against_scikit_learn() -> None:
    table = per_class_table(PREDICTIONS, LABELS, COUNTS, label_names=list("abcdefgh"))
    precision, recall, f1, support = precision_recall_fscore_support(
        LABELS, PREDICTIONS, labels=range(8), zero_division=0
    )
    confusion = confusion_matrix(LABELS, PREDICTIONS, labels=range(8))
    np.fill_diagonal(confusion, 0)
    for row in table[:7]:
        c = row.label
        assert (row.test_count, row.train_count) == (support[c], COUNTS[c])
        assert (row.precision, row.recall, row.f1) == pytest.approx((precision[c], recall[c], f1[c]))
        assert row.accuracy == row.recall
        assert (row.most_confused_with, row.confused_images) == ("abcdefgh"[confusion[c].argmax()], confusion[c].max())
    assert [row.group for row in table] == ["many", "many", "medium", "medium", "medium", "few", "few", "few"]
    assert (table[7].accuracy, table[7].f1, table[7].most_confused_with) == (None, None, None)
    assert table[7].precision == 0.0


def test_ties_of_confusion_go_to_the_lower_class() -> None:
    rivals, times = most_confused(np.array([2, 1, 1, 2, 0, -1]), np.array([0, 0, 0, 0, 0, 0]), 3)
    assert rivals.tolist() == [1, -1, -1]
    assert times.tolist() == [2, 0, 0]


def test_group_confusion_by_hand() -> None:
    # Classes 0 and 1 are many-shot, 2 is few-shot.
    rows = group_confusion([0, 1, 2, -1, 0], [0, 0, 0, 0, 2], [500, 400, 3], ShotThresholds())
    assert rows["many"] == {"right": 0.25, "many": 0.25, "medium": 0.0, "few": 0.25, "rejected": 0.25}
    assert rows["few"] == {"right": 0.0, "many": 1.0, "medium": 0.0, "few": 0.0, "rejected": 0.0}
    assert set(rows["medium"].values()) == {None}


def test_label_names_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="2 label_names for 8 class_counts"):
        per_class_table(PREDICTIONS, LABELS, COUNTS, label_names=["a", "b"])
