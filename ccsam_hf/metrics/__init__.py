"""Pure figures of long-tailed recognition; only `adapter` knows Trainer."""

from .accuracy import long_tail_accuracy
from .adapter import LongTailMetrics, predicted_classes

__all__ = ["LongTailMetrics", "long_tail_accuracy", "predicted_classes"]
