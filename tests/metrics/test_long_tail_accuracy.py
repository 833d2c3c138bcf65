"""The five accuracies against scikit-learn and by hand, and Trainer's adapter."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from transformers import EvalPrediction

from ccsam_hf.metrics import LongTailMetrics, long_tail_accuracy, predicted_classes
from ccsam_hf.shots import ShotThresholds

COUNTS = [500, 101, 100, 20, 19, 1]


def test_against_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    labels, predictions = rng.integers(0, 6, 300), rng.integers(0, 6, 300)
    figures = long_tail_accuracy(predictions, labels, COUNTS)
    recall = [np.mean(predictions[labels == c] == c) for c in range(6)]
    assert figures["accuracy"] == pytest.approx(accuracy_score(labels, predictions))
    assert figures["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, predictions))
    assert figures["many"] == pytest.approx(np.mean(recall[:2]))
    assert figures["medium"] == pytest.approx(np.mean(recall[2:4]))
    assert figures["few"] == pytest.approx(np.mean(recall[4:]))


def test_groups_weigh_classes_not_images() -> None:
    figures = long_tail_accuracy([0, 0, 0, 0], [0, 0, 0, 1], [500, 400])
    assert figures == {"accuracy": 0.75, "balanced_accuracy": 0.5, "many": 0.5, "medium": None, "few": None}


def test_group_whose_classes_have_no_test_image_is_none() -> None:
    figures = long_tail_accuracy(torch.tensor([0, 2]), torch.tensor([0, 0]), torch.tensor([200, 50, 2]))
    assert figures == {"accuracy": 0.5, "balanced_accuracy": 0.5, "many": 0.5, "medium": None, "few": None}


def test_one_class() -> None:
    assert long_tail_accuracy([0], [0], [5])["few"] == 1.0


def test_boundaries_move_classes() -> None:
    labels, predictions = [0, 1, 2], [0, 0, 2]
    assert long_tail_accuracy(predictions, labels, [101, 100, 20])["many"] == 1.0
    assert long_tail_accuracy(predictions, labels, [101, 100, 20], boundaries="inclusive")["many"] == 0.5


@pytest.mark.parametrize(
    ("predictions", "labels", "message"),
    [
        ([0, 1], [0], "2 predictions for 1 references"),
        ([], [], "the split is empty"),
        ([0, 6], [0, 1], "predictions holds class 6 at position 1, outside 0..5"),
        ([0, 0], [0, -1], "references holds class -1 at position 1"),
        ([0.5, 0.2], [0, 1], "take the argmax"),
        ([[0.5, 0.2]], [0], "one class index for each image"),
    ],
)
def test_bad_input(predictions: list, labels: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        long_tail_accuracy(predictions, labels, COUNTS)


def test_adapter_omits_absent_groups_and_says_so_beforehand() -> None:
    metrics = LongTailMetrics(torch.tensor([500, 3]), ShotThresholds())
    outputs = EvalPrediction(predictions=np.array([0, 0, 1]), label_ids=np.array([0, 1, 1]))
    assert metrics(outputs) == {"accuracy": 2 / 3, "balanced_accuracy": 0.75, "many": 1.0, "few": 0.5}
    assert metrics.metric_names == ("accuracy", "balanced_accuracy", "many", "few")


def test_adapter_takes_logits_too() -> None:
    logits = np.array([[0.0, 1.0], [2.0, 1.0]], dtype=np.float32)
    assert LongTailMetrics([500, 3])(EvalPrediction((logits, logits), np.array([1, 1])))["accuracy"] == 0.5


def test_predicted_classes_never_widen() -> None:
    logits = torch.tensor([[0.0, 1.0, 0.5], [2.0, 1.0, 0.0]])
    assert predicted_classes(logits, torch.tensor([0, 0])).tolist() == [1, 0]
    assert predicted_classes((logits, logits), None).tolist() == [1, 0]


def test_nan_logits_are_refused_at_the_end() -> None:
    predictions = predicted_classes(torch.tensor([[0.0, float("nan")], [1.0, 0.0]]))
    with pytest.raises(ValueError, match="1 of 2 evaluation images are NaN"):
        LongTailMetrics([5, 5])(EvalPrediction(predictions.numpy(), np.array([0, 0])))
