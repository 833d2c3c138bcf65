"""Every loss against its reference in float64, one sample at a time; gradients by finite differences."""

import math

import pytest
import torch

from ccsam_hf.losses import Target, build_loss, effective_number_weights, inverse_frequency_weights, smoothing_factors

F64 = torch.float64
COUNTS = ([50, 20, 8, 3, 1], [7, 900])


# The references: one sample, plain Python numbers, straight from the formulas.


def softmax(row):
    total = math.fsum(math.exp(x) for x in row)
    return [math.exp(x) / total for x in row]


def cross_entropy(row, y, counts, noise, **_):
    return -math.log(softmax(row)[y])


def focal(row, y, counts, noise, gamma):
    p = softmax(row)[y]
    return -((1 - p) ** gamma) * math.log(p)


def ldam(row, y, counts, noise, max_margin, scale):
    raw = [n**-0.25 for n in counts]
    margins = [m * max_margin / max(raw) for m in raw]
    return cross_entropy([scale * (x - margins[y] * (c == y)) for c, x in enumerate(row)], y, counts, noise)


def balanced_softmax(row, y, counts, noise):
    total = math.fsum(n * math.exp(x) for n, x in zip(counts, row, strict=True))
    return -math.log(counts[y] * math.exp(row[y]) / total)


def logit_adjustment(row, y, counts, noise, tau):
    # Menon et al. also write it as a pairwise margin: log(1 + sum_{c != y} (pi_c / pi_y)^tau exp(f_c - f_y)).
    return math.log(
        1 + math.fsum((n / counts[y]) ** tau * math.exp(row[c] - row[y]) for c, n in enumerate(counts) if c != y)
    )


def logit_margin(row, y, counts, noise, mean_margin, tau):
    samples = [n**-0.25 for n in counts for _ in range(n)]
    margin = mean_margin * counts[y] ** -0.25 / (math.fsum(samples) / len(samples))
    return logit_adjustment([x - margin * (c == y) for c, x in enumerate(row)], y, counts, noise, tau)


def vs(row, y, counts, noise, gamma, tau):
    total = sum(counts)
    return cross_entropy(
        [(n / max(counts)) ** gamma * x + tau * math.log(n / total) for n, x in zip(counts, row, strict=True)],
        y,
        counts,
        noise,
    )


def gcl(row, y, counts, noise, noise_scale, margin, scale):
    span = math.log(max(counts)) - math.log(min(counts))
    sizes = [(math.log(max(counts)) - math.log(n)) / span if span else 0.0 for n in counts]
    clouded = [x - noise_scale * abs(e) * w for x, e, w in zip(row, noise, sizes, strict=True)]
    clouded[y] -= margin
    return cross_entropy([scale * x for x in clouded], y, counts, noise)


def label_smoothing(row, y, counts, noise, epsilon, convention):
    k = len(row)
    if convention == "uniform":
        target = [epsilon / k + (1 - epsilon) * (c == y) for c in range(k)]
    else:
        target = [1 - epsilon if c == y else epsilon / (k - 1) for c in range(k)]
    assert math.isclose(sum(target), 1)
    return -math.fsum(q * math.log(p) for q, p in zip(target, softmax(row), strict=True))


def smoothing_of_class(n, counts, head, tail, shape, power):
    low, high = min(counts), max(counts)
    if shape == "concave":
        return tail + (head - tail) * math.sin(math.pi * (n - low) / (2 * (high - low)))
    if shape == "linear":
        return tail + (head - tail) * (n - low) / (high - low)
    if shape == "convex":
        return head + (head - tail) * math.sin(1.5 * math.pi + math.pi * (n - low) / (2 * (high - low)))
    return tail + (head - tail) * ((n - low) / (high - low)) ** power


def label_aware_smoothing(row, y, counts, noise, epsilon_head, epsilon_tail, shape, convention, power=None):
    epsilon = smoothing_of_class(counts[y], counts, epsilon_head, epsilon_tail, shape, power)
    return label_smoothing(row, y, counts, noise, epsilon, convention)


def lade_regulariser(rows, labels, counts, alpha, remine_lambda, importance):
    total, num_classes, batch = sum(counts), len(counts), len(rows)
    result = 0.0
    for c in range(num_classes):
        own = [row[c] for row, y in zip(rows, labels, strict=True) if y == c]
        first = math.fsum(own) / len(own) if own else 0.0
        mean = 0.0
        for row, y in zip(rows, labels, strict=True):
            drawn = y if importance == "sample" else c
            mean += (1 / num_classes) / (counts[drawn] / total) * math.exp(row[c]) / batch
        result += counts[c] / total * (-first + math.log(mean) + remine_lambda * math.log(mean) ** 2)
    return alpha * result


REFERENCES = {
    "cross_entropy": cross_entropy,
    "class_balanced": cross_entropy,
    "focal": focal,
    "ldam": ldam,
    "balanced_softmax": balanced_softmax,
    "logit_adjustment": logit_adjustment,
    "logit_margin": logit_margin,
    "vs": vs,
    "lade": balanced_softmax,
    "gcl": gcl,
    "label_smoothing": label_smoothing,
    "label_aware_smoothing": label_aware_smoothing,
}


def batch(num_classes, size, seed=0):
    g = torch.Generator().manual_seed(seed)
    logits = torch.rand(size, num_classes, generator=g, dtype=F64) * 2 - 1
    first, second = torch.randint(num_classes, (2, size), generator=g)
    noise = (torch.randn(size, num_classes, generator=g, dtype=F64) / 3).clamp(-1, 1)
    weight = torch.rand(size, generator=g, dtype=F64)
    return logits, Target(first), Target(first, second, weight), noise


def built(name, args, counts):
    return build_loss(name, torch.tensor(counts), len(counts), dtype=F64, **args)


@pytest.mark.parametrize("counts", COUNTS, ids=str)
@pytest.mark.parametrize("size", [1, 7])
def test_value_is_the_papers_formula(case, size, counts):
    name, args = case
    loss = built(name, args, counts)
    logits, plain, mixed, noise = batch(len(counts), size)
    draw = noise if loss.draws_noise else None

    def expected(labels):
        return [
            REFERENCES[name](x, y, counts, xi, **args)
            for x, y, xi in zip(logits.tolist(), labels.tolist(), noise.tolist(), strict=True)
        ]

    assert loss(logits, plain, draw).tolist() == pytest.approx(expected(plain.labels), rel=1e-11, abs=1e-12)
    if loss.supports_mixed_targets:
        pairs = zip(mixed.weight.tolist(), expected(mixed.labels), expected(mixed.other), strict=True)
        blended = [w * a + (1 - w) * b for w, a, b in pairs]
        assert loss(logits, mixed, draw).tolist() == pytest.approx(blended, rel=1e-11)


def test_gradient_is_that_of_the_value(case):
    name, args = case
    loss = built(name, args, COUNTS[0])
    logits, plain, mixed, noise = batch(5, 3, seed=1)
    draw = noise if loss.draws_noise else None
    target = mixed if loss.supports_mixed_targets else plain
    assert torch.autograd.gradcheck(lambda x: loss(x, target, draw), logits.requires_grad_(True))


@pytest.mark.parametrize("importance", ["sample", "column"])
@pytest.mark.parametrize("counts", COUNTS, ids=str)
def test_lade_regulariser_is_equation_16(counts, importance):
    args = {"alpha": 0.3, "remine_lambda": 0.2, "importance": importance}
    loss = built("lade", args, counts)
    logits, plain, mixed, _ = batch(len(counts), 4)
    expected = lade_regulariser(logits.tolist(), plain.labels.tolist(), counts, **args)
    assert loss.regulariser(logits, plain).item() == pytest.approx(expected, rel=1e-11)
    assert torch.autograd.gradcheck(lambda x: loss.regulariser(x, plain), logits.requires_grad_(True))
    with pytest.raises(ValueError, match="no mixed form"):
        loss.regulariser(logits, mixed)


def test_lade_regulariser_does_not_see_the_training_prior():
    """With importance weights of the samples, repeating a class's samples (and its count) changes no s_c."""
    logits = torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=F64)
    labels = torch.tensor([0, 1, 2])
    once = built("lade", {"alpha": 1.0}, [1, 1, 1])
    often = built("lade", {"alpha": 1.0}, [4, 1, 1])
    repeated = torch.tensor([0, 0, 0, 0, 1, 2])

    def part(loss, rows):
        # d/df of the regulariser's log-mean-exp terms, class by class, is what the importance weights shape.
        x = logits[rows].clone().requires_grad_(True)
        (g,) = torch.autograd.grad(loss.regulariser(x, Target(labels[rows])), x)
        summed = torch.zeros(3, 3, dtype=F64).index_add_(0, rows, g)
        return summed / loss.prior_shift.exp()

    torch.testing.assert_close(part(often, repeated), part(once, labels))


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.9999])
def test_effective_number_is_the_geometric_sum(beta):
    counts = [300, 20, 1]
    raw = [1 / sum(beta**k for k in range(n)) for n in counts]
    expected = [3 * r / sum(raw) for r in raw]
    assert effective_number_weights(torch.tensor(counts), beta).tolist() == pytest.approx(expected, rel=1e-9)


def test_effective_number_tends_to_inverse_frequency_without_losing_digits():
    counts = torch.tensor([500, 20, 3, 1])
    torch.testing.assert_close(
        effective_number_weights(counts, 1 - 1e-12), inverse_frequency_weights(counts), rtol=1e-8, atol=0
    )
    assert inverse_frequency_weights(counts).tolist() == pytest.approx(
        [4 / n / sum(1 / k for k in (500, 20, 3, 1)) for n in (500, 20, 3, 1)]
    )


@pytest.mark.parametrize("shape", ["concave", "linear", "convex", "exponential"])
def test_smoothing_factors_run_from_tail_to_head(shape):
    counts = [100, 60, 10, 2]
    factors = smoothing_factors(torch.tensor(counts), 0.4, 0.1, shape, 2.0).tolist()
    assert factors == pytest.approx([smoothing_of_class(n, counts, 0.4, 0.1, shape, 2.0) for n in counts])
    assert (factors[0], factors[-1]) == pytest.approx((0.4, 0.1))
    assert smoothing_factors(torch.tensor([5, 5]), 0.4, 0.1, shape, 2.0).tolist() == pytest.approx([0.4, 0.4])
