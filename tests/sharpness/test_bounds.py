"""The bound as printed against numerical minimisation, and its corollary against cases with known risk."""

import math

import pytest
import torch

from ccsam_hf.sam.radius import characteristic_radius
from ccsam_hf.sharpness.bounds import (
    certified_bound,
    gaussian_divergence,
    inverse_kl,
    needed_ratio,
    printed_bound,
    printed_objective,
)

F64 = torch.float64


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=F64)


def test_minimiser_against_a_fine_grid():
    loss, gradients, counts = tensor(0.1, 0.3, 0.0), tensor(0.5, 0.01, 3.0), tensor(500, 5, 1)
    bound = printed_bound(loss, gradients, 12.0, 1000, counts)
    grid = torch.logspace(-6, 6, 400_001, dtype=F64)
    for c in range(3):
        values = printed_objective(grid, loss[c], gradients[c], tensor(12.0), 1000, counts[c], 0.05)
        assert float(bound.value[c]) == pytest.approx(float(values.min()), rel=1e-7)
        assert float(bound.radius[c]) == pytest.approx(float(grid[values.argmin()]), rel=1e-3)


def test_eq_4_minimises_the_true_maximum_where_its_approximations_hold():
    """Eq. 1 with the exact maximum of a quadratic loss, minimised by grid search, against Eq. 4.

    The approximations: ‖w‖²/4ρ² far above log(n/δ) (small ρ, large ‖w‖) and a nearly linear loss in the ball.
    """
    k, n, norm, slope, bend = 100, 10_000, 1000.0, 50.0, 1e-3
    radii = torch.logspace(-2, 2, 20_001, dtype=F64)
    exact_maximum = slope * k**0.5 * radii + 0.5 * bend * k * radii**2  # H = bend · I: ε along the gradient
    complexity = ((norm**2 / (4 * radii**2) + math.log(n / 0.05)) / (n - 1)).sqrt()
    numerical = radii[(exact_maximum + complexity).argmin()]
    predicted = characteristic_radius(norm, slope, k, tensor(n))
    assert float(predicted) == pytest.approx(float(numerical), rel=1e-3)
    exact = printed_bound(tensor(0.0), tensor(slope), norm, k, tensor(n)).radius
    assert float(exact) == pytest.approx(float(predicted), rel=1e-4)


def test_eq_4_fails_where_the_logarithm_rules():
    predicted = characteristic_radius(1.0, 1e-4, 100, tensor(1000))
    exact = printed_bound(tensor(0.0), tensor(1e-4), 1.0, 100, tensor(1000)).radius
    assert float(exact / predicted) < 0.6


def test_quadratic_loss_has_its_bound_in_closed_form():
    """With k, ‖w‖, g known, B = L + √k ρ g + √((‖w‖²/4ρ² + log(n/δ))/(n − 1)) at the returned ρ*, term by term."""
    bound = printed_bound(tensor(0.2), tensor(0.7), 3.0, 16, tensor(101), delta=0.1)
    rho = float(bound.radius)
    complexity = math.sqrt((9 / (4 * rho**2) + math.log(1010)) / 100)
    assert float(bound.complexity) == pytest.approx(complexity)
    assert float(bound.value) == pytest.approx(0.2 + 4 * rho * 0.7 + complexity)
    assert float(bound.relative_radius) == pytest.approx(4 * rho / 3)
    assert float(bound.needed_ratio) == pytest.approx(4 / (2 * 10))


def test_below_the_needed_ratio_the_complexity_exceeds_one():
    counts = tensor(2, 50, 5000)
    from ccsam_hf.sharpness.bounds import printed_complexity

    radius = needed_ratio(64, counts) * 5.0 / 8  # ρ with √k ρ/‖w‖ = needed ratio
    assert bool((printed_complexity(radius * 0.999, tensor(5.0), counts, 0.05) > 1).all())


def test_zero_gradient_and_single_samples_stay_finite():
    bound = printed_bound(tensor(0.5, 0.5), tensor(0.0, 1.0), 2.0, 10, tensor(40, 1))
    assert bound.radius[0] == torch.inf
    assert float(bound.value[0]) == pytest.approx(0.5 + math.sqrt(math.log(800) / 39))
    assert bool(bound.value.isfinite().all())


def test_divergence_against_sampling():
    generator = torch.Generator().manual_seed(0)
    w, rho, sigma = tensor(1.0, -2.0), 0.7, 1.3
    points = w + rho * torch.randn(200_000, 2, generator=generator, dtype=F64)
    log_q = (-((points - w) ** 2) / (2 * rho**2)).sum(1) - 2 * math.log(rho)
    log_p = (-(points**2) / (2 * sigma**2)).sum(1) - 2 * math.log(sigma)
    expected = float((log_q - log_p).mean())
    assert float(gaussian_divergence(5**0.5, 2, tensor(rho), tensor(sigma))) == pytest.approx(expected, rel=0.01)
    assert float(gaussian_divergence(5**0.5, 2, tensor(rho), tensor(rho))) == pytest.approx(5 / (2 * rho**2))


def test_inverse_kl_inverts_and_bounds_pinsker():
    q, budget = tensor(0.0, 0.1, 0.5, 1.0), tensor(0.05, 0.05, 0.05, 0.05)
    p = inverse_kl(q, budget)
    divergence = torch.xlogy(q, q / p) + torch.xlogy(1 - q, (1 - q) / (1 - p))
    torch.testing.assert_close(divergence[1:3], budget[1:3])
    assert float(p[0]) == pytest.approx(1 - math.exp(-0.05))
    assert bool((p <= q + (budget / 2).sqrt() + 1e-12).all())


def test_moment_constant_holds_below_eight_samples():
    """Σ_j C(n,j) (j/n)^j (1 − j/n)^(n−j) ≤ 2√n: the step of the proof that Maurer shows for n ≥ 8 only."""
    for n in range(1, 8):
        moment = sum(math.comb(n, j) * (j / n) ** j * (1 - j / n) ** (n - j) for j in range(n + 1))
        assert moment <= 2 * math.sqrt(n)


def test_certified_bound_holds_where_the_risk_is_known():
    """y = sign(x₁), x ~ N(0, I₂): the 0-1 risk of w is its angle to e₁ over π; w is fitted to the sample.

    With δ = 0.2 at most 20 % of the samples may violate the bound *for any width*; it also has to say something.
    """
    generator = torch.Generator().manual_seed(0)
    widths, draws, samples, trials = torch.logspace(-1, 1, 5, dtype=F64), 400, 300, 60
    violations, smallest = 0, []
    for _ in range(trials):
        x = torch.randn(samples, 2, generator=generator, dtype=F64)
        signed = x * x[:, :1].sign()
        w = 3 * signed.mean(0) / signed.mean(0).norm()
        noisy = w + widths[:, None, None] * torch.randn(len(widths), draws, 2, generator=generator, dtype=F64)
        empirical = (noisy @ signed.T < 0).double().mean((1, 2))
        many = w + widths[:, None, None] * torch.randn(len(widths), 4000, 2, generator=generator, dtype=F64)
        risk = (torch.atan2(many[..., 1].abs(), many[..., 0]) / math.pi).mean(1)
        bound = certified_bound(empirical, draws, float(w.norm()), 2, widths, samples, delta=0.2)
        violations += int((bound < risk - 0.01).any())
        smallest.append(float(bound.min()))
    assert violations <= 0.2 * trials
    assert max(smallest) < 0.5, "the bound is non-vacuous here"


def test_certified_bound_grows_with_the_number_of_classes_and_shrinks_with_samples():
    arguments = (tensor(0.1), 1000, 1.0, 10, tensor(0.5))
    one = certified_bound(*arguments, samples=500)
    assert certified_bound(*arguments, samples=500, classes=100) > one > certified_bound(*arguments, samples=5000)


def test_losses_outside_the_unit_interval_are_refused():
    with pytest.raises(ValueError, match=r"losses in \[0, 1\]"):
        printed_bound(tensor(2.3), tensor(1.0), 1.0, 5, tensor(10))
    with pytest.raises(ValueError, match="between 0 and 1"):
        printed_bound(tensor(0.3), tensor(1.0), 1.0, 5, tensor(10), delta=1.0)
    with pytest.raises(ValueError, match="counts of at least 1"):
        printed_bound(tensor(0.3), tensor(1.0), 1.0, 5, tensor(0))
    with pytest.raises(ValueError, match="positive widths"):
        certified_bound(tensor(0.1), 5, 1.0, 2, tensor(0.0), 10)
