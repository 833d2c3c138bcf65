import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ccsam_hf.sam.cosine import unit_cosine_shift
from ccsam_hf.sam.partition import Groups
from ccsam_hf.sam.radius import RadiusRule

F64 = torch.float64
CASES = {
    "single samples": [0, 1, 2, 3],
    "one sample": [2],
    "one class": [1, 1, 1, 1, 1],
    "mixed": [0, 3, 3, 1, 0, 3, 3, 2],
}
RULES = {
    "as printed": RadiusRule(radius_scale=0.5, max_perturbation_ratio=None),
    "capped": RadiusRule(radius_scale=50.0, max_perturbation_ratio=0.1),
    "constant": RadiusRule(radius=0.7, gradient_exponent=0, count_exponent=0, max_perturbation_ratio=None),
}


def case(labels: list[int], classes: int = 4, width: int = 6) -> tuple[Tensor, Tensor, Tensor, Groups]:
    generator = torch.Generator().manual_seed(len(labels))
    z = torch.randn(len(labels), width, generator=generator, dtype=F64).requires_grad_()
    weight = torch.randn(classes, width, generator=generator, dtype=F64).requires_grad_()
    y = torch.tensor(labels)
    return z, weight, y, Groups(y, torch.tensor([1, 30, 7, 2]), torch.ones(4, dtype=torch.bool))


def cosine_logits(z: Tensor, weight: Tensor, scale: float) -> Tensor:
    return scale * F.normalize(z, dim=1) @ F.normalize(weight, dim=1).T


def loop_over_groups(z, weight, y, groups, scale, rule, loss):
    """Every group through its own W + ε_c, ε_c constant."""
    losses, norms = [], torch.zeros(groups.number, dtype=F64)
    for g in range(groups.number):
        mine = groups.index == g
        if not mine.any():
            continue
        (gradient,) = torch.autograd.grad(loss(cosine_logits(z.detach()[mine], weight, scale), y[mine]).mean(), weight)
        norms[g] = gradient.norm()
        length = rule.lengths(norms[g : g + 1], groups.counts[g : g + 1], weight.detach().norm(), weight.numel())
        step = length * gradient / norms[g] if norms[g] > 0 else 0
        losses.append((mine.nonzero().squeeze(1), loss(cosine_logits(z[mine], weight + step, scale), y[mine])))
    joined = torch.zeros(len(y), dtype=F64)
    for rows, values in losses:
        joined = joined.index_put((rows,), values)
    return joined, norms


def closed_form(z, weight, y, groups, scale, rule, loss):
    logits = cosine_logits(z, weight, scale)
    leaf = logits.detach().requires_grad_()
    (delta,) = torch.autograd.grad(loss(leaf, y).sum(), leaf)
    shift = unit_cosine_shift(z, weight, delta, groups, scale)
    lengths = rule.lengths(shift.grad_norm, groups.counts, weight.detach().norm(), weight.numel())
    return loss(shift.logits(lengths, groups), y), shift.grad_norm


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(logits, y, reduction="none")


def soft(logits: Tensor, y: Tensor) -> Tensor:
    target = 0.7 * F.one_hot(y, 4) + 0.3 * F.one_hot((y + 1) % 4, 4)
    return F.cross_entropy(logits, target.double(), reduction="none")


@pytest.mark.parametrize("loss", [cross_entropy, soft])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("labels", CASES)
@pytest.mark.parametrize("scale", [1.0, 16.0])
def test_equals_loop_over_groups(labels: str, rule: str, loss, scale: float) -> None:
    z, weight, y, groups = case(CASES[labels])
    expected, norms = loop_over_groups(z, weight, y, groups, scale, RULES[rule], loss)
    got, got_norms = closed_form(z, weight, y, groups, scale, RULES[rule], loss)
    torch.testing.assert_close(got_norms, norms, rtol=0, atol=1e-9)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-9)
    for one, other in zip(
        torch.autograd.grad(got.mean(), [z, weight]), torch.autograd.grad(expected.mean(), [z, weight]), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


def test_zero_gradient_gives_the_plain_logits_and_finite_gradients() -> None:
    z, weight, _, groups = case([0, 1, 1])
    shift = unit_cosine_shift(z, weight, torch.zeros(3, 4, dtype=F64), groups, 4.0)
    logits = shift.logits(torch.ones(4, dtype=F64), groups)
    torch.testing.assert_close(logits, cosine_logits(z, weight, 4.0), rtol=0, atol=1e-14)
    assert shift.grad_norm.eq(0).all()
    for one, other in zip(
        torch.autograd.grad(logits.square().sum(), [z, weight], retain_graph=True),
        torch.autograd.grad(cosine_logits(z, weight, 4.0).square().sum(), [z, weight]),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_fitted_class_is_finite_in_float32() -> None:
    z, weight, _, groups = case([0, 1, 1])
    z, weight = z.detach().float().requires_grad_(), weight.detach().float().requires_grad_()
    delta = 1e-28 * torch.tensor([[-2.0, 1, 1, 0], [1, -1, 0, 0], [0, -3, 1, 2]])
    shift = unit_cosine_shift(z, weight, delta, groups, 16.0)
    logits = shift.logits(torch.full((4,), 0.3), groups)
    reference = unit_cosine_shift(z.double(), weight.double(), delta.double(), groups, 16.0)
    torch.testing.assert_close(logits, reference.logits(torch.full((4,), 0.3), groups).float(), rtol=1e-4, atol=1e-4)
    assert torch.isfinite(torch.cat([g.flatten() for g in torch.autograd.grad(logits.sum(), [z, weight])])).all()


def test_clean_feature_gradient_shows_features_the_plain_classifier_in_the_numerator() -> None:
    z, weight, _, groups = case([0, 3, 3, 1])
    delta = torch.randn(4, 4, generator=torch.Generator().manual_seed(0), dtype=F64)
    lengths = torch.full((4,), 0.4, dtype=F64)
    perturbed = unit_cosine_shift(z, weight, delta, groups, 4.0).logits(lengths, groups)
    clean = unit_cosine_shift(z, weight, delta, groups, 4.0, "clean").logits(lengths, groups)
    torch.testing.assert_close(clean, perturbed, rtol=0, atol=1e-12)
    norms = perturbed.detach() / perturbed.detach()
    shift = unit_cosine_shift(z, weight, delta, groups, 4.0)
    length = (shift.weight_square + (lengths[groups.index, None] ** 2) * shift.square).detach().sqrt() * norms
    expected = 4.0 * (F.normalize(z, dim=1) @ weight.T) / length
    (got,) = torch.autograd.grad(clean.square().sum(), z)
    (want,) = torch.autograd.grad(expected, z, grad_outputs=2 * clean.detach())
    torch.testing.assert_close(got, want, rtol=0, atol=1e-9)


def test_inactive_groups_keep_their_logits() -> None:
    z, weight, _, groups = case([0, 1, 1])
    groups = Groups(groups.index, groups.counts, torch.tensor([False, True, True, True]))
    delta = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=F64)
    logits = unit_cosine_shift(z, weight, delta, groups, 4.0).logits(torch.ones(4, dtype=F64), groups)
    plain = cosine_logits(z, weight, 4.0)
    torch.testing.assert_close(logits[0], plain[0], rtol=0, atol=1e-12)
    assert (logits[1:] - plain[1:]).abs().max() > 1e-3
