"""One function from a benchmark to a published model."""

from .options import BenchmarkOptions
from .parsing import Settings, parse_settings
from .report import results_table
from .run import main, run_experiment

__all__ = ["BenchmarkOptions", "Settings", "main", "parse_settings", "results_table", "run_experiment"]
