"""Partitions against groups written out by hand."""

import pytest
import torch

from ccsam_hf.sam import Groups
from ccsam_hf.sam.partition import Partition

COUNTS = torch.tensor([10, 500, 40, 3, 100])
LABELS = torch.tensor([0, 1, 1, 3, 4, 2, 2, 2])


def test_the_whole_batch_is_one_group() -> None:
    groups = Partition("batch")(LABELS, COUNTS)
    assert groups.index.tolist() == [0] * 8
    assert groups.counts.tolist() == [653]


def test_one_group_per_class() -> None:
    groups = Partition("class")(LABELS, COUNTS)
    assert torch.equal(groups.index, LABELS)
    assert torch.equal(groups.counts, COUNTS)
    assert groups.sizes().tolist() == [1, 2, 3, 1, 1]


def test_the_head_is_not_perturbed() -> None:
    groups = Partition("head_tail", head_threshold=40)(LABELS, COUNTS)
    assert groups.index.tolist() == [1, 0, 0, 1, 0, 1, 1, 1]
    assert groups.counts.tolist() == [600, 53]
    assert groups.active.tolist() == [False, True]


def test_quantiles_follow_frequency() -> None:
    # By frequency: 1 (500), 4 (100), 2 (40), 0 (10), 3 (3): two groups of three and two classes.
    groups = Partition("quantiles", groups=2)(LABELS, COUNTS)
    assert groups.index.tolist() == [1, 0, 0, 1, 0, 0, 0, 0]
    assert groups.counts.tolist() == [640, 13]


@pytest.mark.parametrize("number", [1, 2, 3, 5])
def test_quantiles_are_as_equal_as_they_can_be(number: int) -> None:
    labels = torch.arange(5)
    sizes = Partition("quantiles", groups=number)(labels, COUNTS).sizes()
    assert sizes.max() - sizes.min() <= 1


def test_random_groups_have_the_sizes_of_the_classes() -> None:
    generator = torch.Generator().manual_seed(0)
    dealt: list[Groups] = [Partition("random")(LABELS, COUNTS, generator) for _ in range(50)]
    for groups in dealt:
        assert groups.sizes().tolist() == [1, 2, 3, 1, 1]
        assert torch.equal(groups.counts, COUNTS)
    assert len({tuple(groups.index.tolist()) for groups in dealt}) > 40


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "halves"}, "partition='halves' is not known; choose one of batch, class"),
        ({"kind": "class", "groups": 2}, "partition_groups=2 with partition='class'.*every other partition none"),
        ({"kind": "quantiles"}, "partition_groups=0 with partition='quantiles'.*needs at least 1"),
        ({"kind": "quantiles", "groups": -1}, "partition_groups=-1"),
        ({"kind": "batch", "groups": -1}, "partition_groups=-1"),
        ({"kind": "head_tail"}, "head_threshold=None with partition='head_tail'.*needs one"),
        ({"kind": "batch", "head_threshold": 3}, "head_threshold=3 with partition='batch'.*every other partition none"),
    ],
)
def test_bad_choices(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Partition(**options)


def test_choices_that_the_counts_forbid() -> None:
    with pytest.raises(ValueError, match="partition_groups=6 is more than the 5 classes"):
        Partition("quantiles", groups=6).check(COUNTS)
    with pytest.raises(ValueError, match="nothing would be perturbed"):
        Partition("head_tail", head_threshold=2).check(COUNTS)
