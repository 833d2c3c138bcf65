"""One function from a benchmark to a published model, and the recipes that call it."""

from .help import help_text
from .options import BenchmarkOptions
from .parsing import Settings, parse_settings
from .recipe import Recipe, main
from .report import results_table
from .run import run_experiment
from .smoke_data import write_smoke_data

__all__ = [
    "BenchmarkOptions",
    "Recipe",
    "Settings",
    "help_text",
    "main",
    "parse_settings",
    "results_table",
    "run_experiment",
    "write_smoke_data",
]
