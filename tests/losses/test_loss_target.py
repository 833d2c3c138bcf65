"""One label or two mixed ones, and the class that a sample belongs to."""

import pytest
import torch

from ccsam_hf.losses import Target

MIXED = Target(torch.tensor([0, 1, 2, 3]), torch.tensor([4, 3, 2, 1]), torch.tensor([0.7, 0.5, 0.5, 0.4999]))


def test_dominant_is_the_label_of_larger_weight_and_the_first_in_a_tie():
    assert MIXED.dominant.tolist() == [0, 1, 2, 1]
    labels = torch.tensor([3, 0])
    assert Target(labels).dominant is labels


def test_mix_is_the_weighted_mean_and_leaves_an_unmixed_value_alone():
    value = torch.arange(5.0) ** 2
    expected = [0.7 * 0 + 0.3 * 16, 0.5 * 1 + 0.5 * 9, 4.0, 0.4999 * 9 + 0.5001 * 1]
    assert MIXED.mix(lambda labels: value[labels]).tolist() == pytest.approx(expected, rel=1e-6)
    result = torch.tensor([1.0])
    assert Target(torch.tensor([2])).mix(lambda labels: result) is result


@pytest.mark.parametrize(
    "index",
    [torch.tensor([True, False, True, False]), torch.tensor([0, 2]), slice(0, 4, 2)],
    ids=["mask", "index", "slice"],
)
def test_select_picks_labels_and_weights_together(index):
    part = MIXED.select(index)
    assert (part.labels.tolist(), part.other.tolist()) == ([0, 2], [4, 2])
    assert torch.equal(part.weight, MIXED.weight[[0, 2]])
    plain = Target(MIXED.labels).select(index)
    assert plain.labels.tolist() == [0, 2]
    assert not plain.is_mixed


def test_moving_keeps_everything():
    moved = MIXED.to("meta")
    assert {moved.labels.device.type, moved.other.device.type, moved.weight.device.type} == {"meta"}
    assert Target(MIXED.labels).to("meta").other is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(3, 5),), "class indices of shape"),
        ((torch.zeros(3),), "two labels and the weight"),
        ((torch.zeros(3, dtype=torch.int64), torch.zeros(3, dtype=torch.int64)), "both or neither"),
        ((torch.zeros(2, dtype=torch.int64), torch.zeros(3, dtype=torch.int64), torch.zeros(2)), "`other` has shape"),
        ((torch.zeros(2, dtype=torch.int64), torch.zeros(2, dtype=torch.int64), torch.zeros(())), "`weight` has shape"),
    ],
)
def test_bad_targets_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Target(*arguments)
