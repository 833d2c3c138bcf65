"""Reductions against loops, and the expectation of the unbiased one over every possible batch."""

import itertools

import pytest
import torch
from torch.nn import functional as F

from ccsam_hf.losses import (
    REDUCTIONS,
    Target,
    batch_class_counts,
    build_loss,
    class_coefficients,
    presence_probability,
    reduce_losses,
)

F64 = torch.float64
COUNTS = torch.tensor([50, 20, 8, 3, 1])
WEIGHTS = torch.tensor([0.2, 0.5, 1.0, 1.5, 1.8], dtype=F64)


def loop(losses, labels, reduction, weights, divide_by, counts):
    """The definitions, one class at a time."""
    w = weights or [1.0] * len(counts)
    if reduction == "sample":
        total = sum(w[y] * x for x, y in zip(losses, labels, strict=True))
        return total / (sum(w[y] for y in labels) if divide_by == "weights" else len(labels))
    total = divisor = 0.0
    for c, n in enumerate(counts):
        own = [x for x, y in zip(losses, labels, strict=True) if y == c]
        seen = 1 - (1 - n / sum(counts)) ** len(labels) if reduction == "class_unbiased" else 1.0
        if own:
            total += w[c] * sum(own) / len(own) / seen
        if own or reduction == "class_unbiased":
            divisor += w[c] if divide_by == "weights" else 1.0
    return total / divisor


@pytest.mark.parametrize("divide_by", ["weights", "samples"])
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
@pytest.mark.parametrize("reduction", list(REDUCTIONS))
@pytest.mark.parametrize("size", [1, 2, 9, 40])
def test_reductions_are_their_definitions(size, reduction, weights, divide_by):
    g = torch.Generator().manual_seed(size)
    losses = torch.rand(size, generator=g, dtype=F64)
    labels = torch.randint(5, (size,), generator=g)
    found = reduce_losses(
        losses,
        Target(labels),
        reduction,
        num_classes=5,
        class_weights=weights,
        divide_by=divide_by,
        class_counts=COUNTS,
    )
    listed = None if weights is None else weights.tolist()
    expected = loop(losses.tolist(), labels.tolist(), reduction, listed, divide_by, COUNTS.tolist())
    assert found.item() == pytest.approx(expected, rel=1e-12)


def test_mixed_samples_count_for_their_dominant_class():
    target = Target(torch.tensor([0, 1]), torch.tensor([2, 0]), torch.tensor([0.5, 0.2]))
    losses = torch.tensor([1.0, 3.0, 5.0])
    both = Target(torch.tensor([0, 1, 3]), torch.tensor([2, 0, 3]), torch.tensor([0.5, 0.2, 1.0]))
    assert target.dominant.tolist() == [0, 0]
    assert reduce_losses(losses, both, "class", num_classes=5).item() == ((1.0 + 3.0) / 2 + 5.0) / 2


def test_sample_mean_is_bitwise_and_weighted_mean_is_torchs():
    g = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(31, 5, generator=g), torch.randint(5, (31,), generator=g)
    loss = build_loss("cross_entropy", COUNTS, 5, weighting="inverse_frequency", drw_epoch=2)
    losses = loss(logits, Target(labels))
    assert torch.equal(loss.reduce(losses, Target(labels), epoch=1), losses.mean())
    stock = F.cross_entropy(logits, labels, weight=loss.class_weights(2))
    torch.testing.assert_close(loss.reduce(losses, Target(labels), epoch=2), stock)
    torch.testing.assert_close(loss.weights(Target(labels), 2), loss.class_weights(2)[labels])
    assert loss.weights(Target(labels), 1) is None


def expectation(reduction, weights):
    """The mean of the reduced loss over all batches of 3 with replacement, for a population of 2 + 1 + 1 samples."""
    labels, values = [0, 0, 1, 2], [1.0, 2.0, 10.0, 40.0]
    counts = torch.tensor([2, 1, 1])
    results = [
        reduce_losses(
            torch.tensor([values[i] for i in chosen], dtype=F64),
            Target(torch.tensor([labels[i] for i in chosen])),
            reduction,
            num_classes=3,
            class_weights=weights,
            class_counts=counts,
        ).item()
        for chosen in itertools.product(range(4), repeat=3)
    ]
    return sum(results) / len(results)


def test_unbiased_class_mean_is_unbiased_over_every_batch():
    class_means = [1.5, 10.0, 40.0]
    assert expectation("class_unbiased", None) == pytest.approx(sum(class_means) / 3, rel=1e-12)
    w = [0.5, 1.0, 4.0]
    weighted = sum(a * b for a, b in zip(w, class_means, strict=True)) / sum(w)
    assert expectation("class_unbiased", torch.tensor(w, dtype=F64)) == pytest.approx(weighted, rel=1e-12)


def test_the_other_two_still_favour_frequent_classes():
    assert expectation("sample", None) == pytest.approx((1 + 2 + 10 + 40) / 4)
    assert (1 + 2 + 10 + 40) / 4 < expectation("class", None) < sum([1.5, 10.0, 40.0]) / 3 - 0.5


def test_presence_probability_keeps_its_digits_for_rare_classes():
    counts = torch.tensor([10**9, 1])
    found = presence_probability(counts.to(F64), 64).tolist()
    assert found == pytest.approx([1.0, 64e-9], rel=1e-6)
    single = presence_probability(counts.float(), 64)
    assert single[1].item() == pytest.approx(64e-9, rel=1e-4)
    assert presence_probability(torch.tensor([7.0]), 3).tolist() == [1.0]


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
@pytest.mark.parametrize("reduction", list(REDUCTIONS))
def test_coefficients_of_the_joint_batch_make_parts_add_up(reduction, weights):
    g = torch.Generator().manual_seed(1)
    losses, labels = torch.rand(12, generator=g, dtype=F64), torch.randint(5, (12,), generator=g)
    joint = batch_class_counts(labels[:5], 5) + batch_class_counts(labels[5:], 5)
    k = class_coefficients(joint, reduction, class_weights=weights, class_counts=COUNTS, dtype=F64)
    parts = (k[labels[:5]] * losses[:5]).sum() + (k[labels[5:]] * losses[5:]).sum()
    whole = reduce_losses(losses, Target(labels), reduction, num_classes=5, class_weights=weights, class_counts=COUNTS)
    torch.testing.assert_close(parts, whole)


def test_a_class_without_training_samples_is_left_out():
    losses, target = torch.tensor([2.0, 4.0], dtype=F64), Target(torch.tensor([0, 1]))
    counts = torch.tensor([3, 1, 0])
    found = reduce_losses(losses, target, "class_unbiased", num_classes=3, class_counts=counts)
    expected = (2.0 / (1 - 0.25**2) + 4.0 / (1 - 0.75**2)) / 2
    assert found.item() == pytest.approx(expected)


def test_every_loss_says_what_its_weighted_mean_divides_by():
    losses, target = torch.tensor([1.0, 2.0]), Target(torch.tensor([0, 4]))
    for name, divisor in (("class_balanced", "weights"), ("class_balanced_focal", "samples")):
        loss = build_loss(name, COUNTS, 5)
        assert loss.mean_divides_by == divisor
        w = loss.class_weights(0)
        total = w[0] * 1.0 + w[4] * 2.0
        expected = total / (w[0] + w[4]) if divisor == "weights" else total / 2
        torch.testing.assert_close(loss.reduce(losses, target), expected)


def test_bad_reductions_are_refused():
    with pytest.raises(ValueError, match="unknown class_reduction 'classes'; choose from sample, class, "):
        reduce_losses(torch.ones(1), Target(torch.tensor([0])), "classes", num_classes=2)
    with pytest.raises(ValueError, match="needs the training set's class counts"):
        reduce_losses(torch.ones(1), Target(torch.tensor([0])), "class_unbiased", num_classes=2)
