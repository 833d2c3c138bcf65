"""Stratified samples whose weighted means estimate the split's own means."""

import pytest
import torch

from ccsam_hf.sharpness.shot_samples import choose_samples, group_weights, require_groups
from ccsam_hf.shots import ShotThresholds

THRESHOLDS = ShotThresholds(many=40, few=10)
COUNTS = torch.tensor([60, 50, 20, 15, 5, 2])
LABELS = torch.repeat_interleave(torch.arange(6), COUNTS)[
    torch.randperm(152, generator=torch.Generator().manual_seed(0))
]


def test_groups_share_the_limit_and_classes_share_the_group():
    index = choose_samples(LABELS, COUNTS, 60, THRESHOLDS)
    assert torch.bincount(LABELS[index]).tolist() == [14, 13, 13, 13, 5, 2]
    assert torch.equal(index, choose_samples(LABELS, COUNTS, 60, THRESHOLDS))
    assert not torch.equal(index, choose_samples(LABELS, COUNTS, 60, THRESHOLDS, seed=1))
    assert len(index.unique()) == 60


def test_all_samples_when_the_limit_allows():
    assert torch.equal(choose_samples(LABELS, COUNTS, 10_000, THRESHOLDS), torch.arange(152))


def test_fewer_samples_than_classes_still_cover_every_group():
    index = choose_samples(LABELS, COUNTS, 3, THRESHOLDS)
    masks = THRESHOLDS.masks(COUNTS)
    assert [int(mask[LABELS[index]].sum()) for mask in masks.values()] == [1, 1, 1]


def test_weighted_means_estimate_the_split():
    """A value that depends on the class only is averaged without error, whatever the subset."""
    value = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 32.0], dtype=torch.float64)
    index = choose_samples(LABELS, COUNTS, 60, THRESHOLDS)
    weights = group_weights(LABELS[index], COUNTS, COUNTS, THRESHOLDS)
    seen = {name: float(weight @ value[LABELS[index]]) for name, weight in weights.items()}
    full = value[LABELS]
    assert seen["all"] == pytest.approx(float(full.mean()))
    for name, mask in THRESHOLDS.masks(COUNTS).items():
        assert seen[name] == pytest.approx(float(full[mask[LABELS]].mean()))
        assert float(weights[name].sum()) == pytest.approx(1)


def test_whole_split_weighs_every_sample_alike():
    weights = group_weights(LABELS, COUNTS, COUNTS, THRESHOLDS)
    torch.testing.assert_close(weights["all"], torch.full((152,), 1 / 152, dtype=torch.float64))


def test_a_group_without_classes_is_left_out_or_refused_when_asked_for():
    thresholds = ShotThresholds(many=40, few=2)
    weights = group_weights(LABELS, COUNTS, COUNTS, thresholds)
    assert list(weights) == ["all", "many", "medium"]
    with pytest.raises(ValueError, match=r"'few' has no class.*change --many and --few"):
        require_groups(("many", "few"), weights, thresholds)
