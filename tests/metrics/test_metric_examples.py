"""The docstrings' examples run, and every way to the five accuracies has the same five."""

import doctest
import importlib

import pytest

from ccsam_hf.metrics import ACCURACIES, long_tail_accuracy
from ccsam_hf.metrics.uncertainty import bootstrap_intervals, paired_test

MODULES = ("accuracy", "adapter", "calibration", "label_shift", "open_set", "streaming", "uncertainty")


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str) -> None:
    found = doctest.testmod(importlib.import_module(f"ccsam_hf.metrics.{name}"))
    assert found.attempted > 0
    assert found.failed == 0


def test_all_ways_lead_to_the_same_five_accuracies() -> None:
    labels, counts = [0, 1, 2], [500, 50, 5]
    assert tuple(long_tail_accuracy(labels, labels, counts)) == ACCURACIES
    assert set(bootstrap_intervals(labels, labels, counts, replicates=5)) == set(ACCURACIES)
    assert set(paired_test(labels, labels, labels, counts, replicates=5)) == set(ACCURACIES)
