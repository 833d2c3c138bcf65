"""From a checkpoint and a split to the whole picture."""

from ccsam_hf.evaluation.compare import compare_predictions
from ccsam_hf.evaluation.evaluate import OpenSet, evaluate_model
from ccsam_hf.evaluation.figures import group_bars_figure
from ccsam_hf.evaluation.options import EvaluationOptions, OpenSetOptions
from ccsam_hf.evaluation.result import Evaluation, Predictions
from ccsam_hf.evaluation.table import paired_table, summary_table

__all__ = [
    "Evaluation",
    "EvaluationOptions",
    "OpenSet",
    "OpenSetOptions",
    "Predictions",
    "compare_predictions",
    "evaluate_model",
    "group_bars_figure",
    "paired_table",
    "summary_table",
]
