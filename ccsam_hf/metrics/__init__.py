"""Figures of long-tailed recognition from predictions or logits; only `adapter` knows Trainer."""

from .accuracy import ACCURACIES, long_tail_accuracy
from .adapter import LongTailMetrics, predicted_classes

__all__ = ["ACCURACIES", "LongTailMetrics", "long_tail_accuracy", "predicted_classes"]
