"""Noise, worst case, spectrum and sharpness of a quadratic loss, whose values are known in closed form."""

import pytest
import torch

from ccsam_hf.sharpness.curvature import curvature, hutchinson_trace, lanczos, sam_sharpness
from ccsam_hf.sharpness.landscape import filter_normalised, grid_axis, landscape, trajectory_plane
from ccsam_hf.sharpness.noise import classifier_noise_losses, noise_losses, noise_ratios, worst_directions
from ccsam_hf.sharpness.objective import Objective, unit_directions, weighted_sums
from ccsam_hf.sharpness.problem import class_gradient_norms
from ccsam_hf.sharpness.radii import few_over_many
from ccsam_hf.training.meters import rank_correlation


def test_loss_under_noise_is_the_quadratic_form(quadratic):
    ratios, directions = noise_ratios(0.8, 4), unit_directions(3, quadratic.start, seed=5)
    measured = noise_losses(quadratic.objective, ratios, directions)
    norm = quadratic.start.norm()
    for i, ratio in enumerate(ratios):
        for s, unit in enumerate(directions):
            for g, name in enumerate(quadratic.groups):
                rise = float(measured[i, s, g] - measured[0, s, g])
                assert rise == pytest.approx(quadratic.rise(name, ratio * norm * unit), abs=1e-10)


def test_mean_rise_over_sphere_noise_is_the_trace(quadratic):
    """E over the sphere of ½r²‖θ‖² uᵀHu = ½ r²‖θ‖² tr H / k; the linear term averages out."""
    directions = unit_directions(400, quadratic.start, seed=0)
    losses = noise_losses(quadratic.objective, torch.tensor([0.0, 0.5]), directions)[:, :, 0]
    rise = losses[1] - losses[0]
    expected = 0.5 * (0.5 * quadratic.start.norm()) ** 2 * quadratic.hessian("all").trace() / 6
    assert abs(rise.mean() - expected) < 4 * rise.std() / 400**0.5


def test_worst_direction_is_the_unit_gradient_of_each_group(quadratic):
    found = worst_directions(quadratic.objective)
    for row, name in zip(found, quadratic.groups, strict=True):
        gradient = quadratic.gradient(name)
        torch.testing.assert_close(row, gradient / gradient.norm())


def test_sharpness_reaches_the_maximum_over_the_ball(quadratic):
    """Reference: the trust-region maximiser g + Hε = με with ‖ε‖ = ρ, by bisection on μ above the top eigenvalue."""
    for name in quadratic.groups:
        hessian, gradient, radius = quadratic.hessian(name), quadratic.gradient(name), 0.3
        values, vectors = torch.linalg.eigh(hessian)
        low, high = float(values[-1]), float(values[-1].abs() + gradient.norm() / radius + 10)
        for _ in range(200):
            middle = (low + high) / 2
            long = ((vectors.T @ gradient) / (middle - values)).norm() > radius
            low, high = (middle, high) if long else (low, middle)
        best = quadratic.rise(name, vectors @ ((vectors.T @ gradient) / (high - values)))
        one = sam_sharpness(quadratic.objective, quadratic.groups[name], radius, steps=1)
        assert one == pytest.approx(quadratic.rise(name, radius * gradient / gradient.norm()), rel=1e-9)
        many = sam_sharpness(quadratic.objective, quadratic.groups[name], radius, steps=40)
        assert one <= many <= best + 1e-9
        assert many == pytest.approx(best, rel=1e-3)


def test_sharpness_is_zero_without_gradient():
    flat = Objective(
        lambda theta: lambda index: (0 * theta.sum()).expand(len(index)), torch.ones(3), {"all": torch.ones(1)}
    )
    assert sam_sharpness(flat, flat.groups["all"], 0.1) == 0.0


def test_lanczos_finds_both_ends_of_the_hessian(quadratic):
    for name, weights in quadratic.groups.items():
        expected = torch.linalg.eigvalsh(quadratic.hessian(name))
        result = curvature(lambda v, w=weights: quadratic.objective.hessian_vector(w, v), quadratic.start, 6, 100)
        assert result.largest == pytest.approx(expected.flip(0)[:3].tolist(), rel=1e-8)
        assert result.smallest == pytest.approx(expected[:3].tolist(), rel=1e-8)
        assert result.smallest[0] < 0, "the fixture has a negative eigenvalue"
        assert abs(result.trace - float(quadratic.hessian(name).trace())) < 4 * result.trace_error


def test_ritz_values_lie_within_their_residuals_of_eigenvalues():
    matrix = torch.diag(torch.linspace(-2, 5, 200, dtype=torch.float64))
    start = torch.randn(200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    spectrum = lanczos(lambda v: matrix @ v, start, 25)
    for value, residual in zip(spectrum.values, spectrum.residuals, strict=True):
        assert (matrix.diagonal() - value).abs().min() <= residual + 1e-10
    assert spectrum.largest(1)[0] == pytest.approx(5, rel=1e-2)
    assert spectrum.smallest(1)[0] == pytest.approx(-2, rel=2e-2)


def test_lanczos_stops_at_an_invariant_subspace():
    spectrum = lanczos(lambda v: 3 * v, torch.ones(50, dtype=torch.float64), 20)
    assert spectrum.values.tolist() == pytest.approx([3.0])
    assert spectrum.residuals.max() < 1e-9


def test_trace_of_a_diagonal_matrix_is_exact():
    diagonal = torch.arange(7.0, dtype=torch.float64)
    assert hutchinson_trace(lambda v: diagonal * v, diagonal, 3) == (pytest.approx(21.0), pytest.approx(0.0, abs=1e-12))
    with pytest.raises(ValueError, match="--probes"):
        hutchinson_trace(lambda v: v, diagonal, 1)


@pytest.mark.parametrize("with_bias", [True, False])
def test_classifier_curves_equal_the_noisy_classifier(with_bias):
    generator = torch.Generator().manual_seed(2)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    features, labels, weight = draw(9, 4), torch.arange(9) % 3, draw(3, 4)
    bias = draw(3) if with_bias else None
    groups = {"all": torch.full((9,), 1 / 9), "few": (labels == 2) / 3.0}
    theta = torch.cat([weight.flatten()] + ([bias] if with_bias else []))
    ratios, directions = noise_ratios(2.0, 3), unit_directions(4, theta, seed=1)
    found = classifier_noise_losses(features, labels, weight, bias, groups, ratios, directions, chunk=4)
    for i, ratio in enumerate(ratios):
        for s, unit in enumerate(directions):
            noisy = theta + ratio * theta.norm() * unit
            logits = features @ noisy[:12].view(3, 4).T + (noisy[12:] if with_bias else 0)
            losses = -logits.log_softmax(1)[torch.arange(9), labels]
            expected = torch.stack([losses.mean(), losses[labels == 2].mean()])
            torch.testing.assert_close(found[i, s], expected, rtol=1e-6, atol=1e-7)


def test_filter_normalisation_against_a_loop():
    generator = torch.Generator().manual_seed(3)
    shapes = {"conv": torch.Size([4, 3, 2, 2]), "bias": torch.Size([4]), "linear": torch.Size([5, 4])}
    start, direction = torch.randn(2, 72, generator=generator, dtype=torch.float64)
    objective = Objective(lambda theta: lambda index: theta[index], start, {"all": torch.ones(1)}, shapes=shapes)
    found = filter_normalised(direction, objective)
    expected = torch.zeros(72, dtype=torch.float64)
    for begin, count, size in ((0, 4, 12), (52, 5, 4)):
        for j in range(count):
            piece = slice(begin + j * size, begin + (j + 1) * size)
            expected[piece] = direction[piece] / direction[piece].norm() * start[piece].norm()
    torch.testing.assert_close(found, expected)


def test_landscape_is_the_loss_on_the_grid(quadratic):
    first, second = unit_directions(2, quadratic.start, seed=9)
    axis = grid_axis(1.0, 3)
    surface = landscape(quadratic.objective, first, second, axis, axis)
    assert surface.shape == (3, 3, 2)
    for i, a in enumerate(axis):
        for j, b in enumerate(axis):
            rise = quadratic.rise("few", a * first + b * second)
            assert float(surface[i, j, 1] - surface[1, 1, 1]) == pytest.approx(rise, abs=1e-10)


def test_path_in_a_plane_is_recovered():
    generator = torch.Generator().manual_seed(4)
    basis = torch.linalg.qr(torch.randn(30, 2, generator=generator, dtype=torch.float64)).Q.T
    flat = torch.tensor([[5.0, 1.0], [3.0, -1.0], [1.0, 0.5], [0.0, 0.0]], dtype=torch.float64)
    points = 7 + flat @ basis
    directions, coordinates, explained = trajectory_plane(points)
    torch.testing.assert_close(directions @ directions.T, torch.eye(2, dtype=torch.float64))
    torch.testing.assert_close(points[-1] + coordinates @ directions, points)
    assert explained == pytest.approx(1.0)
    straight = 7 + torch.tensor([[2.0], [1.0], [0.0]], dtype=torch.float64) * basis[:1]
    directions, coordinates, _ = trajectory_plane(straight)
    torch.testing.assert_close(points[-1] * 0 + 7 + coordinates @ directions, straight)


def test_class_gradient_norms_against_one_class_at_a_time(quadratic):
    labels = torch.tensor([0, 0, 1, 0, 1])
    means, norms = class_gradient_norms(quadratic.objective, labels, 3)
    for label in (0, 1):
        inside = labels == label
        hessian, slope = quadratic.hessians[inside].mean(0), quadratic.slopes[inside].mean(0)
        assert float(norms[label]) == pytest.approx(float((hessian @ quadratic.start + slope).norm()))
        loss = 0.5 * quadratic.start @ hessian @ quadratic.start + slope @ quadratic.start
        assert float(means[label]) == pytest.approx(float(loss))
    assert norms[2].isnan()


def test_rank_correlation_and_few_over_many():
    from scipy.stats import spearmanr

    generator = torch.Generator().manual_seed(5)
    first = torch.randint(0, 6, (40,), generator=generator).double()
    second = first + torch.randint(0, 5, (40,), generator=generator)
    assert rank_correlation(first, second) == pytest.approx(spearmanr(first, second).statistic, abs=1e-12)
    assert rank_correlation(torch.ones(4), torch.arange(4.0)) is None
    masks = {"many": torch.tensor([True, True, False, False]), "few": torch.tensor([False, False, True, True])}
    assert few_over_many(torch.tensor([1.0, 1.0, 4.0, 4.0]), masks) == 4.0
    assert few_over_many(torch.tensor([1.0, 1.0, torch.inf, torch.nan]), masks) is None


def test_one_infinite_loss_stays_in_its_group():
    losses = torch.tensor([1.0, torch.inf, 3.0])
    found = weighted_sums(torch.tensor([[0.5, 0.0, 0.5], [0.0, 1.0, 0.0]]), losses)
    assert found.tolist() == [2.0, float("inf")]


@pytest.mark.parametrize("largest", [0.0, -1.0, float("nan"), float("inf")])
def test_empty_or_negative_noise_ranges_are_refused(largest):
    with pytest.raises(ValueError, match=r"empty or negative.*--noise_range"):
        noise_ratios(largest, 5)


def test_too_few_levels_points_or_checkpoints_are_refused():
    with pytest.raises(ValueError, match="--levels"):
        noise_ratios(1.0, 1)
    with pytest.raises(ValueError, match="--grid an odd number"):
        grid_axis(1.0, 4)
    with pytest.raises(ValueError, match="at least 3 checkpoints"):
        trajectory_plane(torch.zeros(2, 5))
    with pytest.raises(ValueError, match="same weights"):
        trajectory_plane(torch.zeros(3, 5))
