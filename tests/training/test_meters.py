"""What a run logs of its radii."""

import pytest
import torch
from scipy import stats

from ccsam_hf.shots import ShotThresholds
from ccsam_hf.training.meters import PerturbationMeter

COUNTS = torch.tensor([500, 150, 60, 12, 5])


def report(*batches: torch.Tensor) -> dict[str, float]:
    meter = PerturbationMeter(COUNTS, ShotThresholds(100, 20))
    for ratio in batches:
        meter.add(ratio, ratio > 0, ratio >= 0.1)
    return meter.report(lambda total: total)


def test_means_over_the_batches_in_which_a_class_occurs() -> None:
    first, second = torch.tensor([0.02, 0.01, 0.0, 0.03, 0.05]), torch.tensor([0.04, 0.0, 0.02, 0.0, 0.1])
    found = report(first, second)
    mean = [0.03, 0.01, 0.02, 0.03, 0.075]
    assert found["radius_many"] == pytest.approx((mean[0] + mean[1]) / 2)
    assert found["radius_few_over_many"] == pytest.approx((mean[3] + mean[4]) / 2 / found["radius_many"])
    assert found["radius_rank_correlation"] == pytest.approx(stats.spearmanr(mean, COUNTS).statistic)
    assert found["radius_capped"] == pytest.approx(1 / 7)


def test_radii_that_differ_by_rounding_have_no_order() -> None:
    assert "radius_rank_correlation" not in report(0.002 * (1 + 1e-6 * torch.arange(5)))
    assert report(0.002 * (1 + 1e-3 * torch.arange(5)))["radius_rank_correlation"] == pytest.approx(-1)
