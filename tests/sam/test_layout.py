import pytest
import torch

from ccsam_hf.sam.layout import GroupLayout
from ccsam_hf.sam.partition import Groups


def groups(index: list[int], number: int = 6) -> Groups:
    return Groups(torch.tensor(index), torch.ones(number, dtype=torch.long), torch.ones(number, dtype=torch.bool))


@pytest.mark.parametrize("max_copies", [None, 1, 2])
@pytest.mark.parametrize("index", [[0], [5, 5, 5], [4, 1, 4, 0, 1, 5, 4], [3, 2, 1, 0]])
def test_segments_cover_the_sorted_batch_with_groups_of_one_size(index: list[int], max_copies: int | None) -> None:
    layout = GroupLayout.of(groups(index), max_copies)
    ordered = torch.tensor(index)[layout.order]
    assert torch.equal(layout.present[layout.member], ordered)
    samples = [i for s in layout.segments for i in range(s.samples.start, s.samples.stop)]
    assert samples == list(range(len(index)))
    for s in layout.segments:
        assert max_copies is None or s.number <= max_copies
        expected = layout.present[s.groups].repeat_interleave(s.size)
        assert torch.equal(ordered[s.samples], expected)
        assert layout.sizes[s.groups].tolist() == [s.size] * s.number


def test_spread_and_of_present_go_between_all_groups_and_the_present_ones() -> None:
    layout = GroupLayout.of(groups([4, 1, 4, 0, 1, 5, 4]))
    values = torch.tensor([1.0, 10, 100, 1000, 10000, 100000])
    assert layout.spread(layout.of_present(values)).tolist() == [1, 10, 0, 0, 10000, 100000]
    halved = Groups(torch.tensor([4, 1]), torch.ones(6, dtype=torch.long), torch.arange(6) > 2)
    assert GroupLayout.of(halved).of_present(values).sum() == 10000


def test_sorted_batch_moves_samples_and_leaves_the_rest() -> None:
    layout = GroupLayout.of(groups([2, 0, 2]))
    given = {"x": torch.arange(6).view(3, 2), "labels": torch.tensor([2, 0, 2]), "scale": torch.tensor(3.0), "n": 3}
    got = layout.sorted_batch(given)
    assert got["labels"].tolist() == [0, 2, 2]
    assert got["x"].tolist() == [[2, 3], [0, 1], [4, 5]]
    assert got["scale"] == 3
    assert got["n"] == 3


def test_refuses_less_than_one_copy() -> None:
    with pytest.raises(ValueError, match="max_copies must be at least 1 or None, got 0"):
        GroupLayout.of(groups([0]), 0)
