"""Logit residuals: equal to autograd's where that is exact, and still exact where float32 rounds it away."""

import math

import pytest
import torch

from ccsam_hf.losses import Target, balanced_residual, build_loss, logit_gradient

COUNTS = torch.tensor([50, 20, 8, 3, 1])


def draw_of(loss, shape):
    return loss.draw(shape, torch.Generator().manual_seed(0), "cpu")


def targets(loss, size, seed=0):
    g = torch.Generator().manual_seed(seed)
    first, second = torch.randint(5, (2, size), generator=g)
    plain = Target(first)
    return [plain, Target(first, second, torch.rand(size, generator=g))] if loss.supports_mixed_targets else [plain]


def test_agrees_with_autograd_in_float64(case):
    name, args = case
    loss = build_loss(name, COUNTS, 5, dtype=torch.float64, **args)
    logits = torch.rand(8, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    draw = draw_of(loss, logits.shape)
    for target in targets(loss, 8):
        (expected,) = torch.autograd.grad(loss(logits, target, draw).sum(), logits)
        found = logit_gradient(loss, logits, target, draw)
        assert not found.requires_grad
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("margin", [5.0, 30.0, 45.0, 60.0])
def test_true_residual_is_minus_the_sum_of_the_others_in_float32(margin):
    logits = torch.tensor([[margin, 0.5, -0.25, 1.0, 0.0]])
    others = [math.exp(x - margin) for x in (0.5, -0.25, 1.0, 0.0)]
    others = [e / (1 + math.fsum(others)) for e in others]
    loss = build_loss("cross_entropy", None, 5)
    found = logit_gradient(loss, logits, Target(torch.tensor([0])))[0].tolist()
    assert found == pytest.approx([-math.fsum(others), *others], rel=1e-5)
    if margin >= 30:
        leaf = logits.clone().requires_grad_(True)
        (naive,) = torch.autograd.grad(loss(leaf, Target(torch.tensor([0]))).sum(), leaf)
        assert naive[0, 0] == 0, "float32 itself would have done"


def test_true_residual_of_the_vs_loss_obeys_its_slopes():
    loss = build_loss("vs", COUNTS, 5, gamma=0.3, tau=0.0)
    slopes = [(n / 50) ** 0.3 for n in COUNTS.tolist()]
    row = [0.5, 0.0, 1.0, 45 / slopes[3], -0.5]
    scaled = [a * x for a, x in zip(slopes, row, strict=True)]
    share = [math.exp(x - scaled[3]) for x in scaled]
    p = [e / math.fsum(share) for e in share]
    expected = [a * q for a, q in zip(slopes, p, strict=True)]
    expected[3] = -slopes[3] * (p[0] + p[1] + p[2] + p[4])
    found = logit_gradient(loss, torch.tensor([row]), Target(torch.tensor([3])))[0].tolist()
    assert found == pytest.approx(expected, rel=1e-4)


def test_float32_at_saturation_agrees_with_float64(case):
    name, args = case
    single = build_loss(name, COUNTS, 5, **args)
    double = build_loss(name, COUNTS, 5, dtype=torch.float64, **args)
    draw = draw_of(single, (5, 5))
    # Margins of 45 after the loss's own scale, for every class in turn.
    logits = 45 * torch.eye(5) + torch.rand(5, 5, generator=torch.Generator().manual_seed(4))
    logits = logits / single.logit_scale
    for labels in (torch.arange(5), torch.arange(5).roll(1)):
        found = logit_gradient(single, logits, Target(labels), draw).double()
        expected = logit_gradient(double, logits.double(), Target(labels), None if draw is None else draw.double())
        torch.testing.assert_close(found, expected, rtol=2e-4, atol=1e-28)


@pytest.mark.parametrize("scale", [1.0, 90.0, 1e4])
def test_extreme_logits_give_no_nan_and_no_subnormal(case, scale):
    name, args = case
    loss = build_loss(name, COUNTS, 5, **args)
    draw = draw_of(loss, (40, 5))
    logits = scale * torch.randn(40, 5, generator=torch.Generator().manual_seed(5)).sign()
    for target in targets(loss, 40):
        leaf = logits.clone().requires_grad_(True)
        losses = loss(leaf, target, draw)
        (plain,) = torch.autograd.grad(losses.sum(), leaf)
        found = logit_gradient(loss, logits, target, draw)
        for tensor in (losses, plain, found):
            assert torch.isfinite(tensor).all()
        assert ((found == 0) | (found.abs() >= 1e-30)).all()


def test_lade_regulariser_survives_extreme_logits():
    loss = build_loss("lade", COUNTS, 5)
    leaf = (1e4 * torch.eye(5)).requires_grad_(True)
    value = loss.regulariser(leaf, Target(torch.arange(5)))
    (gradient,) = torch.autograd.grad(value, leaf)
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_and_autocast_do_not_reach_the_residual(case, dtype):
    name, args = case
    loss = build_loss(name, COUNTS, 5, **args)
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(6)).to(dtype)
    target = targets(loss, 6)[-1]
    draw = draw_of(loss, logits.shape)
    expected = logit_gradient(loss, logits.float(), target, draw)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = logit_gradient(loss, logits, target, draw)
        value = loss(logits, target, draw)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)
    torch.testing.assert_close(value, loss(logits.float(), target, draw))


def test_balanced_residual_rows_add_up_to_zero():
    gradient = torch.randn(6, 5, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    labels = torch.arange(6) % 5
    balanced = balanced_residual(gradient, labels)
    torch.testing.assert_close(balanced.sum(1), torch.zeros(6, dtype=torch.float64))
    slopes = torch.tensor([0.1, 0.5, 1.0, 2.0, 3.0], dtype=torch.float64)
    torch.testing.assert_close((balanced_residual(gradient, labels, slopes) / slopes).sum(1), balanced.sum(1))
    kept = torch.ones(6, 5, dtype=torch.bool).scatter(1, labels[:, None], False)
    assert torch.equal(balanced[kept], gradient[kept])
    assert balanced_residual(torch.full((1, 3), 1e-31), torch.tensor([1])).tolist() == [[0.0, 0.0, 0.0]]
