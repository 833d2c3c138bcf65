"""The grids in recipes/: every run's options are accepted, and the arms are what the study asks for."""

from pathlib import Path

import pytest
import torch

from ccsam_hf.experiment import cifar, digits, parse_settings
from ccsam_hf.experiment.checks import check_settings
from ccsam_hf.losses import build_loss
from ccsam_hf.study.grid import read_grid
from ccsam_hf.training.steps import resolve_plan

FOLDER = Path(__file__).parents[2] / "recipes" / "grids"
GRIDS = sorted(path.name for path in FOLDER.glob("*.yaml"))
DEFAULTS = {"cifar": cifar.RECIPE.defaults, "digits": digits.RECIPE.defaults}


def settings_of(run, folder):
    words = [word for word in run.words()[1:] if not word.startswith(("--output_dir", "--use_cpu"))]
    return parse_settings(DEFAULTS[run.benchmark.kind], [*words, f"--output_dir={folder}", "--use_cpu=true"])


@pytest.mark.parametrize("name", GRIDS)
def test_every_run_is_one_that_the_recipes_accept(name, tmp_path) -> None:
    grid = read_grid(FOLDER / name)
    runs = [run for run in grid.runs() if run.seed == grid.seeds[0] and run.benchmark == grid.benchmarks[0]]
    for run in runs:
        settings = settings_of(run, tmp_path)
        check_settings(settings)
        plan = resolve_plan(settings.stage1)
        assert plan is None or plan.closed_form or not settings.stage1.bf16, run.method.name
        for args in (settings.stage1, settings.stage2):
            build_loss(args.loss, [5, 3, 1], 3, **(args.loss_args or {}))


def test_arms_differ_in_nothing_but_what_their_contrast_names() -> None:
    """One mean relative radius, one base: A9's margin alone stands in for a perturbation."""
    for name in ("cifar_arms.yaml", "digits_arms.yaml"):
        arms = {arm.name: dict(arm.options) for arm in read_grid(FOLDER / name).methods}
        assert len({arm.kind for arm in read_grid(FOLDER / name).methods}) == 1
        radii = {options.pop("relative_radius") for options in arms.values() if "perturbation" in options}
        assert len(radii) == 1
        assert arms["A0"] == {}
        assert arms["A7"] == arms["A5"] | {"count_exponent": -0.25}
        assert arms["A6"] == arms["A5"] | {"gradient_norm": "unbiased"}
        assert [c.name for c in read_grid(FOLDER / name).contrasts][:5] == [
            "class partition",
            "class radius",
            "gradient factor",
            "direction",
            "sense",
        ]


@pytest.mark.parametrize("name", [name for name in GRIDS if "radii" in name or "bases" in name])
def test_what_is_tuned_never_meets_the_test_set(name) -> None:
    grid = read_grid(FOLDER / name)
    assert grid.options["holdout"] is True
    assert grid.score == "balanced_accuracy"


def test_a_negative_count_exponent_reverses_the_counts_of_an_exponential_profile() -> None:
    counts = 5000 * 100 ** -(torch.arange(10, dtype=torch.float64) / 9)
    reversed_rule, own = counts.flip(0) ** -0.25, counts**0.25
    torch.testing.assert_close(reversed_rule / reversed_rule.mean(), own / own.mean())
