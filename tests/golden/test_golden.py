"""The runs of `trajectories.py` give the stored numbers."""

import importlib.util
import json
from pathlib import Path

import pytest

SPEC = importlib.util.spec_from_file_location("golden_trajectories", Path(__file__).with_name("trajectories.py"))
assert SPEC is not None
assert SPEC.loader is not None
trajectories = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(trajectories)
CASES = trajectories.cases()
STORED = json.loads(trajectories.STORED.read_text(encoding="utf-8"))

# Some cases draw a classifier in float32, which another processor rounds otherwise (seen: 1.2e-7).
RELATIVE = 5e-6


def test_every_case_is_stored() -> None:
    assert set(STORED) == set(CASES), "run `python tests/golden/trajectories.py` to store the new cases"


@pytest.mark.parametrize("name", CASES)
def test_trajectory_is_the_stored_one(name: str) -> None:
    found, wanted = CASES[name](), STORED[name]
    for part in ("losses", "weights"):
        # Noise and fresh classifiers are drawn in float32, whose rounding differs between processors.
        assert found[part] == pytest.approx(wanted[part], rel=RELATIVE, abs=1e-8), part
