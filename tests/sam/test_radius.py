"""Radius rules against Eq. 8 and 9 worked out by hand, and the laws of their scales."""

import pytest
import torch

from ccsam_hf.sam import RadiusRule, characteristic_radius

COUNTS = torch.tensor([1, 2, 17, 500])
GRADS = torch.tensor([0.5, 2.0, 1e-6, 0.03], dtype=torch.float64)
NORM = torch.tensor(12.0, dtype=torch.float64)


def test_equation_8_by_hand() -> None:
    # (‖w‖ / 2‖g‖)^½ = (8 / 4)^½, k^-¼ = 16^-¼ = ½, (n − 1)^-¼ = 16^-¼ = ½
    rho = characteristic_radius(8.0, 2.0, 16, torch.tensor([17]))
    assert rho.item() == pytest.approx(2**0.5 / 4)


def test_one_image_counts_as_two() -> None:
    one, two = characteristic_radius(8.0, 2.0, 16, torch.tensor([1, 2]))
    assert one == two


@pytest.mark.parametrize("number", [10, 64_100])
def test_radius_scale_multiplies_equation_9(number: int) -> None:
    rule = RadiusRule(radius_scale=0.25, max_perturbation_ratio=None)
    lengths = rule.lengths(GRADS, COUNTS, NORM, number)
    expected = 0.25 * number**0.5 * characteristic_radius(NORM, GRADS, number, COUNTS.double())
    torch.testing.assert_close(lengths, expected)


def test_half_and_quarter_is_equation_8_up_to_scale() -> None:
    unit = RadiusRule(radius_scale=1.0).unit(GRADS, COUNTS)
    ratio = characteristic_radius(NORM, GRADS, 10, COUNTS.double()) / unit
    torch.testing.assert_close(ratio, ratio[:1].expand(4))


def test_the_running_mean_makes_the_average_the_one_asked_for() -> None:
    rule = RadiusRule(relative_radius=0.03, max_perturbation_ratio=None)
    mean = rule.unit(GRADS, COUNTS).mean()
    lengths = rule.lengths(GRADS, COUNTS, NORM, 10, mean)
    assert (lengths / NORM).mean().item() == pytest.approx(0.03)


def test_without_a_mean_every_group_moves_by_the_relative_radius() -> None:
    rule = RadiusRule(relative_radius=0.03)
    grads = torch.tensor([0.0, 1.0, 2.0, 3.0], dtype=torch.float64)
    lengths = rule.lengths(grads, COUNTS, NORM, 10, torch.zeros((), dtype=torch.float64))
    torch.testing.assert_close(lengths / NORM, torch.tensor([0, 0.03, 0.03, 0.03], dtype=torch.float64))


def test_a_fitted_class_cannot_take_over_the_mean() -> None:
    rule = RadiusRule(relative_radius=0.01)
    units = torch.tensor([1.0, 1.0, 1e9])
    assert rule.clipped_unit(units, torch.tensor(1.0)).tolist() == [1.0, 1.0, pytest.approx(10.0)]


@pytest.mark.parametrize("cap", [0.001, 0.1])
def test_the_cap_holds(cap: float) -> None:
    rule = RadiusRule(radius_scale=1.0, max_perturbation_ratio=cap)
    lengths = rule.lengths(GRADS, COUNTS, NORM, 10)
    assert (lengths <= cap * NORM).all()
    assert lengths[2] == cap * NORM


def test_a_constant_radius_ignores_gradient_and_count() -> None:
    rule = RadiusRule(radius=0.2, gradient_exponent=0, count_exponent=0)
    assert rule.lengths(GRADS, COUNTS, NORM, 10).tolist() == [0.2] * 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "exactly one of radius, radius_scale and relative_radius"),
        ({"radius_scale": 1.0, "relative_radius": 0.1}, "exactly one"),
        ({"radius_scale": -1.0}, "radius_scale must be a finite number of at least 0"),
        ({"relative_radius": float("inf")}, "relative_radius must be a finite number"),
        ({"radius": 0.1}, "gradient_exponent and count_exponent must be 0"),
        ({"radius_scale": 1.0, "max_perturbation_ratio": 0.0}, "max_perturbation_ratio must be positive"),
        ({"radius_scale": 1.0, "gradient_exponent": float("nan")}, "gradient_exponent must be a finite number"),
        ({"radius_scale": 1.0, "count_exponent": float("inf")}, "count_exponent must be a finite number"),
        ({"relative_radius": 0.2}, "above max_perturbation_ratio"),
    ],
)
def test_bad_options_are_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RadiusRule(**options)
