"""Sweeps, contrasts paired by seed, and the figures of a grid."""

import csv
import math
import statistics

import pytest
import yaml
from scipy import stats

from ccsam_hf.study.contrasts import contrast_rows, paired_difference, student_quantile
from ccsam_hf.study.curves import order_curve, sweep_points
from ccsam_hf.study.grid import read_grid
from ccsam_hf.study.table import cells, save_table

ARMS = [
    {"name": "none", "method": "ce"},
    {"name": "A3", "method": "ce", "options": {"perturbation": "ccsam_constant"}, "sweep": {"relative_radius": [0.01]}},
    {
        "name": "A5",
        "method": "ce",
        "title": "Eq. 8",
        "options": {"perturbation": "ccsam"},
        "sweep": {"relative_radius": [0.002, 0.01]},
    },
]
CONTRASTS = [
    {"name": "any", "of": "A5", "against": "none"},
    {"name": "radius", "of": "A5", "against": "A3"},
]
# In %: by method and seed; none has one seed more.
SCORES = {
    "none": {0: 30.0, 1: 31.0, 2: 35.0, 3: 60.0},
    "A5-0.002": {0: 31.0, 1: 33.0, 2: 38.0},
    "A5-0.01": {0: 20.0},
}


@pytest.fixture
def grid_of(tmp_path):
    def make(**changes):
        content = {
            "output_dir": str(tmp_path / "study"),
            "benchmarks": [{"name": "c10", "command": "cifar"}],
            "methods": ARMS,
            "seeds": [0, 1, 2, 3],
            "contrasts": CONTRASTS,
        }
        path = tmp_path / "grid.yaml"
        path.write_text(yaml.safe_dump(content | changes), encoding="utf-8")
        return read_grid(path)

    return make


def rows_of(scores=SCORES):
    def row(value):
        figures = {"accuracy": value / 100, "balanced_accuracy": value / 200, "many": 0.5, "medium": None, "few": 0.1}
        log = [{"epoch": e, "radius_rank_correlation": (value - 30) / 10 - e} for e in (1.0, 2.0)]
        return {**figures, "seconds": 60.0, "epochs": [5.0], "evaluated_on": "the test set", "log": log}

    return {("c10", m, seed): row(v) for m, found in scores.items() for seed, v in found.items()}


@pytest.mark.parametrize("degrees", [1, 2, 7, 40])
@pytest.mark.parametrize("probability", [0.6, 0.975, 0.995])
def test_quantiles_are_students(probability, degrees) -> None:
    assert student_quantile(probability, degrees) == pytest.approx(stats.t.ppf(probability, degrees), rel=1e-9)


def test_the_interval_is_that_of_the_paired_test() -> None:
    of, against = {0: 3.0, 1: 4.5, 2: 2.0, 9: 100.0}, {0: 2.0, 1: 3.0, 2: 2.5, 8: 50.0}
    found = paired_difference(of, against)
    reference = stats.ttest_rel([3.0, 4.5, 2.0], [2.0, 3.0, 2.5])
    interval = reference.confidence_interval(0.95)
    assert (found.mean, found.seeds) == (pytest.approx(2 / 3), 3)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_without_pairs_nothing_is_told_and_with_one_no_interval() -> None:
    assert paired_difference({0: 1.0}, {1: 1.0}) is None
    single = paired_difference({0: 1.0}, {0: 3.0})
    assert single.mean == -2
    assert math.isnan(single.low)


def test_a_sweep_is_an_arm_for_each_value(grid_of) -> None:
    grid = grid_of()
    assert [arm.name for arm in grid.methods] == ["none", "A3-0.01", "A5-0.002", "A5-0.01"]
    words = [run.words() for run in grid.runs()][2]
    assert words[:4] == ["cifar", "--method=ce", "--perturbation=ccsam", "--relative_radius=0.002"]
    assert words[-1].endswith("runs/c10/A5-0.002/seed0")
    assert [cell.title for cell in cells(grid, {})][1:3] == ["CE: A3-0.01", "Eq. 8, 0.002"]


def test_the_papers_figure_is_not_that_of_a_perturbed_arm(grid_of) -> None:
    named = [cell.paper for cell in cells(grid_of(benchmarks=[{"name": "c10", "command": "cifar"}]), {})]
    assert named == [38.43, None, None, None]


def test_contrasts_of_sweeps_go_value_by_value(grid_of) -> None:
    grid = grid_of()
    assert [(c.name, c.of, c.against) for c in grid.contrasts] == [
        ("any, 0.002", "A5-0.002", "none"),
        ("any, 0.01", "A5-0.01", "none"),
        ("radius, 0.01", "A5-0.01", "A3-0.01"),
    ]
    found = contrast_rows(grid.benchmarks, grid.contrasts, rows_of())
    first = next(row for row in found if row.figure == "accuracy")
    assert (first.difference, first.seeds) == (pytest.approx(2.0), 3)
    assert first.high - first.difference == pytest.approx(stats.t.ppf(0.975, 2) / math.sqrt(3))
    assert [row.seeds for row in found if row.figure == "medium"] == [0, 0, 0]


def test_the_table_shows_contrasts_gaps_and_the_note(grid_of) -> None:
    grid = grid_of(note="Radii: chosen on the hold-out.")
    text = save_table(grid, rows_of())
    assert "| c10 | any, 0.002 | A5-0.002 − none | +2.00 (-0.48 to +4.48) | +0.00 (+0.00 to +0.00) | not run |" in text
    assert "| c10 | any, 0.01 | A5-0.01 − none | -10.00 (one pair) |" in text
    assert "| c10 | radius, 0.01 | A5-0.01 − A3-0.01 | not run |" in text
    assert "Radii: chosen on the hold-out." in text
    with (grid.root / "contrasts.csv").open(encoding="utf-8") as file:
        assert float(next(csv.DictReader(file))["difference"]) == pytest.approx(2)
    for name in ("table", "sweeps", "radii"):
        assert (grid.root / f"{name}.png").stat().st_size > 5000


def test_the_score_is_what_ranks(grid_of) -> None:
    grid = grid_of(score="balanced_accuracy")
    cell = cells(grid, rows_of())[2]
    assert (cell.score, cell.accuracy) == (pytest.approx(17.0), pytest.approx(34.0))
    assert cell.score_std == pytest.approx(statistics.stdev([15.5, 16.5, 19.0]))
    assert "Balanced accuracy, the mean over classes in %" in save_table(grid, rows_of())


def test_points_of_the_figures(grid_of) -> None:
    grid, rows = grid_of(), rows_of()
    low, high = sweep_points(grid, grid.benchmarks[0], "A5", rows)
    assert low == pytest.approx((0.002, 34.0, statistics.stdev([31, 33, 38])))
    assert high == (0.01, 20.0, 0.0)
    curve = order_curve(grid, grid.benchmarks[0], grid.methods[2], rows, "radius_rank_correlation")
    assert curve == [(1.0, pytest.approx(-0.6)), (2.0, pytest.approx(-1.6))]
    rows["c10", "A5-0.002", 2]["log"].pop()
    assert len(order_curve(grid, grid.benchmarks[0], grid.methods[2], rows, "radius_rank_correlation")) == 1


REFUSED = {
    "two options": (dict(ARMS[1], sweep={"radius": [1], "tau": [1]}), "must be one option with a list of values"),
    "words": (dict(ARMS[1], sweep={"loss": ["vs"]}), "needs numbers for loss"),
    "ours": (dict(ARMS[1], sweep={"seed": [1, 2]}), "seed of A3 is set by the grid itself"),
    "twice": (dict(ARMS[1], sweep={"relative_radius": [0.01, 0.01]}), "have 'A3-0.01' twice"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_sweeps(grid_of, case) -> None:
    arm, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        grid_of(methods=["ce", arm], contrasts=[])


@pytest.mark.parametrize(
    ("contrast", "message"),
    [
        ({"name": "x", "of": "A5", "against": "A9"}, "names 'A9': the grid's methods are none, A3, A5"),
        ({"name": "x", "of": "A5"}, "has name, of and against"),
        ({"name": "x", "of": "A5-0.002", "against": "A3"}, "A5 and A3 share no value"),
    ],
)
def test_bad_contrasts(grid_of, contrast, message) -> None:
    with pytest.raises(ValueError, match=message):
        grid_of(contrasts=[contrast])


def test_an_unknown_score(grid_of) -> None:
    with pytest.raises(ValueError, match="score 'f1' is not known; choose one of accuracy, balanced_accuracy, many"):
        grid_of(score="f1")
