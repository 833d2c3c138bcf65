"""What is wrong with a grid's options, said before the first run rather than when its turn comes."""

from __future__ import annotations

from importlib import import_module

from ..experiment import parse_settings
from ..experiment.checks import check_settings
from ..training.steps import resolve_plan
from .grid import Grid


def check_runs(grid: Grid) -> None:
    """ValueError, with the run's name, for options that a recipe refuses without looking at data."""
    for run in grid.runs():
        if run.seed != grid.seeds[0]:
            continue
        recipe = import_module(f"..experiment.{run.benchmark.kind}", __package__).RECIPE
        try:
            settings = parse_settings(recipe.defaults, run.words()[1:])
            check_settings(settings)
            resolve_plan(settings.stage1)
        except ValueError as error:
            raise ValueError(f"{run.benchmark.name}, {run.method.name}: {error}") from error
