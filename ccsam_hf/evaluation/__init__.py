"""From a checkpoint and a split to the whole picture."""

from .evaluate import CheckpointEvaluation, evaluate_checkpoint, evaluate_model, evaluation_text
from .image_split import ImageSplit, SplitOptions, load_split
from .open_recognition import OpenSet, OpenSetOptions
from .plots import draw_figures, group_bars_figure
from .results import Evaluation, Predictions, compare_predictions, paired_table, summary_table
from .runner import EvaluationOptions

__all__ = [
    "CheckpointEvaluation",
    "Evaluation",
    "EvaluationOptions",
    "ImageSplit",
    "OpenSet",
    "OpenSetOptions",
    "Predictions",
    "SplitOptions",
    "compare_predictions",
    "draw_figures",
    "evaluate_checkpoint",
    "evaluate_model",
    "evaluation_text",
    "group_bars_figure",
    "load_split",
    "paired_table",
    "summary_table",
]
