"""An analysis that was killed goes on where it stopped, and ends as if it had not been."""

import json
import math
from collections import Counter
from dataclasses import replace

import pytest
import torch

from ccsam_hf.sharpness import AnalysisSettings, LabelledSplit, Sizes, analyse
from ccsam_hf.sharpness.objective import Objective
from ccsam_hf.sharpness.saved_results import PartialResults, under
from ccsam_hf.shots import ShotThresholds

COUNTS = torch.tensor([6, 4, 2])
SPLIT = LabelledSplit("toy train", torch.repeat_interleave(torch.arange(3), COUNTS), COUNTS)
SIZES = Sizes(samples=12, few_samples=9, levels=3, seeds=2, grid=3, steps=3, probes=2, ascent_steps=2)
SETTINGS = AnalysisSettings(thresholds=ShotThresholds(many=5, few=4), scopes=("all",))


@pytest.fixture(autouse=True)
def _one_thread():
    """With more threads, the points that run beside the killed one are finished and kept too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Killed(BaseException):
    """What no part catches, like the signal of a scheduler."""


@pytest.fixture
def calls(monkeypatch):
    """Counts the calls of the objective's methods; raises `Killed` at the call numbered ``calls["kill at"]``."""
    counted: Counter[str] = Counter()

    def watch(name: str) -> None:
        original = getattr(Objective, name)

        def watched(*args, **options):
            counted[name] += 1
            counted["calls"] += 1
            if counted["calls"] == counted["kill at"]:
                raise Killed
            return original(*args, **options)

        monkeypatch.setattr(Objective, name, watched)

    for name in ("group_losses", "gradient", "hessian_vector"):
        watch(name)
    return counted


def results(folder):
    return {
        path.name: json.loads(path.read_text(encoding="utf-8"))["result"] for path in folder.glob("data/net/*.json")
    }


@pytest.mark.parametrize(
    ("part", "settings"),
    [
        ("landscape", {}),
        ("noise", {}),
        ("radii", {"radius_scope": "all"}),
        ("bound", {"radius_scope": "all"}),
        ("curvature", {}),
        ("sharpness", {}),
    ],
)
def test_killed_and_resumed_equals_uninterrupted(part, settings, checkpoint, calls, tmp_path):
    """Killed half-way, and once more on the way from there; what is finished is not repeated."""
    chosen = replace(SETTINGS, measures=(part,), **settings)
    analyse([checkpoint], SPLIT, tmp_path / "whole", chosen, SIZES)
    needed = calls["calls"]
    for kill_at in (needed // 2, needed // 2 + 1):
        calls.clear()
        calls["kill at"] = kill_at
        with pytest.raises(Killed):
            analyse([checkpoint], SPLIT, tmp_path / "killed", chosen, SIZES)
    calls.clear()
    analyse([checkpoint], SPLIT, tmp_path / "killed", chosen, SIZES)
    assert calls["calls"] < needed
    assert results(tmp_path / "killed") == results(tmp_path / "whole")
    assert not list(tmp_path.rglob("*.values"))


def test_finished_points_of_a_landscape_are_not_computed_again(checkpoint, calls, tmp_path):
    chosen, once = replace(SETTINGS, measures=("landscape",)), replace(checkpoint, run=())
    calls["kill at"] = 6
    with pytest.raises(Killed):
        analyse([once], SPLIT, tmp_path, chosen, SIZES)
    assert len(list(tmp_path.rglob("*.values"))) == 1
    calls.clear()
    analyse([once], SPLIT, tmp_path, chosen, SIZES)
    assert calls["group_losses"] == 9 - 5, "a grid of 9 points, of which 5 were there"
    stored = json.loads(next(tmp_path.glob("data/net/landscape-*.json")).read_text(encoding="utf-8"))
    assert stored["values_of_earlier_calls"] == 5


def test_points_of_other_settings_are_not_taken(checkpoint, calls, tmp_path):
    chosen, once = replace(SETTINGS, measures=("landscape",)), replace(checkpoint, run=())
    calls["kill at"] = 6
    with pytest.raises(Killed):
        analyse([once], SPLIT, tmp_path, chosen, SIZES)
    calls.clear()
    analyse([once], SPLIT, tmp_path, replace(chosen, grid_range=0.5), SIZES)
    assert calls["group_losses"] == 9


def test_values_come_back_bit_for_bit(tmp_path):
    values = [0.1 + 0.2, 5e-324, 1.7976931348623157e308, -0.0, math.inf, -math.inf, None, {"a": [1, 2.5]}]
    PartialResults(tmp_path / "p")("first", lambda: values)
    again = PartialResults(tmp_path / "p")
    found = again("first", pytest.fail)
    assert found == values
    assert math.copysign(1, found[3]) == -1
    assert again.taken == 1
    again("nan", lambda: math.nan)
    assert math.isnan(PartialResults(tmp_path / "p")("nan", pytest.fail))


def test_a_line_that_was_cut_off_anywhere_is_computed_again(tmp_path):
    path = tmp_path / "p"
    PartialResults(path)("one", lambda: [1.5])
    begin = path.stat().st_size
    PartialResults(path)("two", lambda: [12, 34.5])
    whole = path.read_bytes()
    for length in range(begin, len(whole)):
        path.write_bytes(whole[:length])
        values = PartialResults(path)
        assert values("one", pytest.fail) == [1.5]
        assert values("two", lambda: [7]) == [7]
        assert PartialResults(path)("two", pytest.fail) == [7]


def test_a_prefix_keeps_names_apart(tmp_path):
    values = PartialResults(tmp_path / "p")
    assert [under(group, values)("level 0", lambda value=value: value) for group, value in (("a", 1), ("b", 2))] == [
        1,
        2,
    ]
    assert under("a", PartialResults(tmp_path / "p"))("level 0", pytest.fail) == 1
