"""The tables of the comparison on frozen features are those of its rows, and the guide shows them."""

import json
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "recipes" / "grids" / "results" / "frozen-features"


@pytest.fixture(scope="module")
def program() -> dict:
    return runpy.run_path(str(ROOT / "recipes" / "frozen_features.py"))


def test_tables_are_those_of_the_rows_and_stand_in_the_guide(program, tmp_path) -> None:
    lines = (RESULTS / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    program["report"](tmp_path, [json.loads(line) for line in lines], "linear")
    guide = (ROOT / "recipes" / "guides" / "results.md").read_text(encoding="utf-8")
    for name in ("table.md", "contrasts.md"):
        table = (tmp_path / name).read_text(encoding="utf-8")
        assert table == (RESULTS / name).read_text(encoding="utf-8")
        assert table in guide


def test_tau_is_chosen_on_tuning_rows_alone_and_the_one_nearest_to_0_among_equals(program) -> None:
    figures = {f"{tau:g}": {"all": 0.5} for tau in program["TAUS"]}
    assert float(program["best_tau"]([{"by_tau": figures}])[0]) == 0
    figures["1.2"] = {"all": 0.7}
    assert program["best_tau"]([{"by_tau": figures}]) == ("1.2", 0.7)


def test_the_arms_differ_from_none_in_their_perturbation_or_loss_alone(program) -> None:
    assert all({*options} <= {"perturbation", "perturbed_layers", "gradient_norm", "count_exponent", "loss"}
               for options in program["ARMS"].values())  # fmt: skip
    assert all(name in program["ARMS"] for _, *pair in program["CONTRASTS"] for name in pair)
