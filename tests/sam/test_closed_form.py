"""The closed form against a loop that really moves the classifier, class by class, in float64."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ccsam_hf.sam import (
    RadiusRule,
    class_groups,
    linear_weight_norm,
    shifted_logits,
    unit_logit_shift,
)

CLASSES, DIM = 5, 7
LABELS = {
    "one sample": [3],
    "all one class": [2, 2, 2, 2],
    "a single among others": [0, 0, 4, 1, 1, 1],
    "every class": [0, 1, 2, 3, 4, 0, 1, 2],
}
RULES = {
    "scale": RadiusRule(radius_scale=0.3, max_perturbation_ratio=None),
    "scale capped": RadiusRule(radius_scale=0.3, max_perturbation_ratio=0.05),
    "relative": RadiusRule(relative_radius=0.02),
    "constant": RadiusRule(radius=0.4, gradient_exponent=0, count_exponent=0, max_perturbation_ratio=None),
}


def make_case(labels: list[int], has_bias: bool, mixed: bool) -> dict:
    generator = torch.Generator().manual_seed(len(labels))
    batch = len(labels)
    soft = F.one_hot(torch.tensor(labels), CLASSES).double()
    if mixed:
        other = F.one_hot(torch.randint(CLASSES, (batch,), generator=generator), CLASSES)
        soft = 0.7 * soft + 0.3 * other
    return {
        "z": torch.randn(batch, DIM, generator=generator, dtype=torch.float64).requires_grad_(),
        "w": torch.randn(CLASSES, DIM, generator=generator, dtype=torch.float64).requires_grad_(),
        "b": torch.randn(CLASSES, generator=generator, dtype=torch.float64).requires_grad_() if has_bias else None,
        "soft": soft,
        "labels": torch.tensor(labels),
        "counts": torch.tensor([500, 40, 7, 1, 2]),
        "mean_unit": torch.tensor(0.8, dtype=torch.float64),
    }


def per_sample(logits: Tensor, soft: Tensor) -> Tensor:
    return -(soft * logits.log_softmax(1)).sum(1)


def loop_reference(case: dict, rule: RadiusRule) -> Tensor:
    """Perturbed loss per sample: own copy of (W, b) for each class, moved along the class's own gradient."""
    z, w, b, soft, labels = (case[key] for key in ("z", "w", "b", "soft", "labels"))
    parameters = [w] if b is None else [w, b]
    norm = torch.sqrt(sum((p.detach() ** 2).sum() for p in parameters))
    number = sum(p.numel() for p in parameters)
    losses = torch.zeros(len(z), dtype=z.dtype)
    for c in labels.unique():
        members = labels == c
        loss = per_sample(F.linear(z[members], w, b), soft[members]).mean()
        grads = torch.autograd.grad(loss, parameters, retain_graph=True)
        grad_norm = torch.sqrt(sum((g**2).sum() for g in grads))
        if grad_norm == 0:
            moved = list(parameters)
        else:
            rarity = max(int(case["counts"][c]) - 1, 1) ** -0.25
            if rule.radius is not None:
                length = torch.tensor(rule.radius, dtype=z.dtype)
            elif rule.radius_scale is not None:
                rho = (norm / (2 * grad_norm)) ** 0.5 * number**-0.25 * rarity
                length = rule.radius_scale * number**0.5 * rho
            else:
                length = rule.relative_radius * grad_norm**-0.5 * rarity / case["mean_unit"] * norm
            if rule.max_perturbation_ratio is not None:
                length = min(length, rule.max_perturbation_ratio * norm)
            moved = [p + (length * g / grad_norm).detach() for p, g in zip(parameters, grads, strict=True)]
        losses[members] = per_sample(F.linear(z[members], *moved), soft[members])
    return losses


def closed_form(case: dict, rule: RadiusRule, feature_gradient: str = "perturbed") -> Tensor:
    z, w, b, soft = (case[key] for key in ("z", "w", "b", "soft"))
    logits = F.linear(z, w, b)
    delta = logits.detach().softmax(1) * soft.sum(1, keepdim=True) - soft
    groups = class_groups(case["labels"], case["counts"])
    shift, grad_norm = unit_logit_shift(z, delta, groups, b is not None, feature_gradient)
    weight_norm, number = linear_weight_norm(w, b)
    lengths = rule.lengths(grad_norm, groups.counts, weight_norm, number, case["mean_unit"])
    return per_sample(shifted_logits(logits, shift, lengths, groups), soft)


def gradients(loss: Tensor, case: dict) -> list[Tensor]:
    inputs = [case[key] for key in ("z", "w", "b") if case[key] is not None]
    return list(torch.autograd.grad(loss, inputs))


@pytest.mark.parametrize(
    ("labels", "rule", "has_bias", "mixed"), list(itertools.product(LABELS, RULES, (True, False), (True, False)))
)
def test_equals_the_loop_over_classes(labels: str, rule: str, has_bias: bool, mixed: bool) -> None:
    case = make_case(LABELS[labels], has_bias, mixed)
    expected, actual = loop_reference(case, RULES[rule]), closed_form(case, RULES[rule])
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)
    for a, e in zip(gradients(actual.mean(), case), gradients(expected.mean(), case), strict=True):
        torch.testing.assert_close(a, e, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("labels", LABELS)
def test_clean_feature_gradient_changes_the_features_only(labels: str) -> None:
    case, rule = make_case(LABELS[labels], True, False), RULES["scale"]
    loss = closed_form(case, rule, "clean")
    torch.testing.assert_close(loss, loop_reference(case, rule), rtol=1e-9, atol=1e-9)
    z, w, b = gradients(loss.mean(), case)
    _, expected_w, expected_b = gradients(loop_reference(case, rule).mean(), case)
    torch.testing.assert_close(w, expected_w)
    torch.testing.assert_close(b, expected_b)
    # The backbone is shown W itself: the same logit gradient, sent back through the unperturbed weights.
    logits = F.linear(case["z"], case["w"], case["b"]).detach()
    moved = closed_form_logits(case, rule)
    residual = (moved.softmax(1) - case["soft"]) / len(logits)
    torch.testing.assert_close(z, residual @ case["w"].detach())


def closed_form_logits(case: dict, rule: RadiusRule) -> Tensor:
    with torch.no_grad():
        logits = F.linear(case["z"], case["w"], case["b"])
        groups = class_groups(case["labels"], case["counts"])
        shift, grad_norm = unit_logit_shift(case["z"], logits.softmax(1) - case["soft"], groups, True)
        weight_norm, number = linear_weight_norm(case["w"], case["b"])
        lengths = rule.lengths(grad_norm, groups.counts, weight_norm, number, case["mean_unit"])
        return shifted_logits(logits, shift, lengths, groups)


@pytest.mark.parametrize("rule", RULES)
def test_no_gradient_means_no_perturbation(rule: str) -> None:
    case = make_case([0, 0, 1], True, False)
    case["soft"] = F.linear(case["z"], case["w"], case["b"]).detach().softmax(1)
    delta = torch.zeros(3, CLASSES, dtype=torch.float64)
    groups = class_groups(case["labels"], case["counts"])
    shift, grad_norm = unit_logit_shift(case["z"], delta, groups, True)
    weight_norm, number = linear_weight_norm(case["w"], case["b"])
    lengths = RULES[rule].lengths(grad_norm, groups.counts, weight_norm, number, case["mean_unit"])
    assert not grad_norm.any()
    assert not lengths.any()
    assert not shift.any()


@pytest.mark.parametrize("margin", [20.0, 40.0, 80.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_fitted_class_stays_finite(margin: float, dtype: torch.dtype) -> None:
    """‖g‖ falls like e^-margin while ‖ε‖ grows as ‖g‖^-½: the length must end at the cap, the loss finite."""
    z = torch.eye(4, DIM).to(dtype).requires_grad_()
    w = (margin * torch.eye(CLASSES, DIM)).to(dtype).requires_grad_()
    labels = torch.arange(4)
    logits = F.linear(z, w)
    p = logits.detach().float().softmax(1)
    delta = p.scatter(1, labels[:, None], 0)
    delta = delta.scatter(1, labels[:, None], -delta.sum(1, keepdim=True))
    groups = class_groups(labels, torch.tensor([500, 40, 7, 1, 2]))
    shift, grad_norm = unit_logit_shift(z, delta, groups, has_bias=False)
    weight_norm, number = linear_weight_norm(w, None)
    lengths = RadiusRule(radius_scale=0.01).lengths(grad_norm, groups.counts, weight_norm, number)
    loss = F.cross_entropy(shifted_logits(logits, shift, lengths, groups), labels)
    loss.backward()
    assert (lengths <= 0.1 * weight_norm * (1 + 1e-6)).all()
    assert loss.isfinite()
    assert z.grad.isfinite().all()
    assert w.grad.isfinite().all()
    present = groups.present()
    torch.testing.assert_close(shift.norm(dim=1), torch.ones(4), rtol=1e-2, atol=0)
    assert (grad_norm[present] > 0).all() or margin > 80


def test_inactive_groups_keep_their_logits() -> None:
    case = make_case([0, 1, 1], True, False)
    groups = class_groups(case["labels"], case["counts"])
    groups = type(groups)(groups.index, groups.counts, torch.tensor([False, True, True, True, True]))
    logits = F.linear(case["z"], case["w"], case["b"])
    shift, _ = unit_logit_shift(case["z"], logits.softmax(1) - case["soft"], groups, True)
    moved = shifted_logits(logits, shift, torch.ones(CLASSES, dtype=torch.float64), groups)
    assert torch.equal(moved[0], logits[0])
    assert not torch.equal(moved[1], logits[1])
