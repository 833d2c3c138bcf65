import numpy as np
import pytest
import torch
from accelerate.data_loader import BatchSamplerShard, SeedableRandomSampler, skip_first_batches
from torch.utils.data import BatchSampler, DataLoader

from ccsam_hf.data.samplers import (
    SAMPLING_SCHEMES,
    ClassSampler,
    effective_number_probabilities,
    power_probabilities,
    progressive_probabilities,
)

COUNTS = [400, 80, 16, 1]
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(4), COUNTS))


def sampler(scheme: str, labels=LABELS, seed: int = 0) -> ClassSampler:
    return ClassSampler(labels, scheme, seed, epochs=10 if scheme == "progressive" else None)


@pytest.mark.parametrize("epoch", [0, 3])
def test_the_instance_balanced_order_is_the_stock_trainers(epoch):
    stock = SeedableRandomSampler(LABELS, data_seed=42, generator=torch.Generator())
    stock.set_epoch(epoch)
    ours = ClassSampler(LABELS, "instance", seed=42)
    ours.set_epoch(epoch)
    assert list(ours) == list(stock)


@pytest.mark.parametrize("scheme", SAMPLING_SCHEMES)
def test_draws_are_a_function_of_seed_and_epoch_and_number_their_places(scheme):
    one, two = sampler(scheme, seed=5), sampler(scheme, seed=5)
    one.set_epoch(2)
    list(one)
    one.set_epoch(1)
    two.set_epoch(1)
    draws = list(one)
    assert draws == list(two)
    assert len(draws) == len(one) == len(LABELS)
    assert [d.position for d in draws] == list(range(len(LABELS)))
    assert {d.epoch for d in draws} == {1}
    two.set_epoch(2)
    assert draws != list(two)
    other = sampler(scheme, seed=6)
    other.set_epoch(1)
    assert draws != list(other)


def reference_probabilities(scheme: str, progress: float = 0.0) -> list[float]:
    """Each sample's weight written out, then summed over the class."""
    weight = {
        "instance": lambda n: 1.0,
        "class": lambda n: 1.0 / n,
        "square_root": lambda n: n**-0.5,
        "effective_number": lambda n: 1.0 / sum(0.9999**i for i in range(n)),
    }
    if scheme == "progressive":
        pairs = zip(reference_probabilities("instance"), reference_probabilities("class"), strict=True)
        return [(1 - progress) * a + progress * b for a, b in pairs]
    mass = [n * weight[scheme](n) for n in COUNTS]
    return [m / sum(mass) for m in mass]


@pytest.mark.parametrize("scheme", SAMPLING_SCHEMES)
def test_class_probabilities_and_frequencies_are_the_schemes(scheme):
    large = sampler(scheme, labels=np.tile(LABELS, 100))
    if scheme != "effective_number":  # its weights depend on the counts themselves
        np.testing.assert_allclose(large.probabilities(4), reference_probabilities(scheme, 0.4), rtol=1e-12)
    np.testing.assert_allclose(sampler(scheme).probabilities(4), reference_probabilities(scheme, 0.4), rtol=1e-9)
    drawn = np.bincount(large.labels[large.order(4)], minlength=4) / len(large)
    np.testing.assert_allclose(drawn, large.probabilities(4), atol=0.01)


def test_samples_are_uniform_within_their_class():
    labels = np.array([1, 0, 1, 0, 1] * 4000)
    drawn = np.bincount(ClassSampler(labels, "class").order(0), minlength=len(labels))
    ones = drawn[labels == 1]
    assert abs(ones.mean() - 0.5 * len(labels) / (labels == 1).sum()) < 0.03
    assert abs(ones.var() - ones.mean()) < 0.05  # Poisson, as independent uniform draws give


def test_limits_of_the_schemes():
    counts = np.array([50, 0, 5])
    np.testing.assert_allclose(power_probabilities(counts, 0.0), [0.5, 0, 0.5])
    np.testing.assert_array_equal(progressive_probabilities(counts, 0.0), power_probabilities(counts, 1.0))
    np.testing.assert_array_equal(progressive_probabilities(counts, 1.0), power_probabilities(counts, 0.0))
    np.testing.assert_allclose(effective_number_probabilities(counts, 0.0), power_probabilities(counts, 1.0))
    np.testing.assert_allclose(effective_number_probabilities(counts, 1 - 1e-9), [0.5, 0, 0.5], atol=1e-6)


def test_two_processes_share_one_order_and_a_resume_continues_it():
    whole = sampler("class")
    whole.set_epoch(3)
    order = list(whole)
    batches = [BatchSamplerShard(BatchSampler(whole, 8, True), 2, rank) for rank in (0, 1)]
    shards = [list(shard) for shard in batches]
    together = [draw for pair in zip(*shards, strict=True) for batch in pair for draw in batch]
    assert together == order[: len(together)]
    assert [d.position for d in together] == list(range(len(together)))
    loader = DataLoader(range(len(LABELS)), batch_size=8, sampler=whole, collate_fn=list)
    resumed = [int(i) for batch in skip_first_batches(loader, 5) for i in batch]
    assert resumed == order[40:]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scheme": "balanced"}, "Unknown sampling scheme 'balanced': choose one of instance, class"),
        ({"scheme": "progressive"}, "needs `epochs`"),
        ({"scheme": "class", "epochs": 3}, "`epochs` has no effect on sampling scheme 'class'"),
        ({"scheme": "class", "beta": 0.9}, "`beta` has no effect"),
        ({"labels": []}, "non-empty"),
        ({"labels": [0, -1]}, "must not be negative, got -1 at 1"),
    ],
)
def test_bad_choices_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ClassSampler(**{"labels": [0, 1]} | options)


def test_bad_epochs_and_betas_are_refused():
    with pytest.raises(ValueError, match="beyond the 10 epochs"):
        sampler("progressive").order(10)
    with pytest.raises(ValueError, match=r"beta must lie in \[0, 1\)"):
        ClassSampler([0, 1], "effective_number", beta=1.0).order(0)
