"""Arguments of the two trainers: everything `transformers.TrainingArguments` has, and the choices of CC-SAM."""

from .effect import default_options, refuse_without_effect
from .shared import LongTailedTrainingArguments
from .stage1 import CLASSIFIERS, CCSAMTrainingArguments
from .stage2 import ClassifierTrainingArguments

__all__ = [
    "CLASSIFIERS",
    "CCSAMTrainingArguments",
    "ClassifierTrainingArguments",
    "LongTailedTrainingArguments",
    "default_options",
    "refuse_without_effect",
]
