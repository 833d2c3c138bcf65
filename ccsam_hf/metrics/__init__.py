"""Pure figures of long-tailed recognition; only `adapter` knows Trainer."""

from ccsam_hf.metrics.accuracy import long_tail_accuracy
from ccsam_hf.metrics.adapter import LongTailMetrics, predicted_classes

__all__ = ["LongTailMetrics", "long_tail_accuracy", "predicted_classes"]
