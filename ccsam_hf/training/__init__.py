"""The two trainers of CC-SAM and their arguments."""

from .adversarial import adversarial_features, progressive_weight
from .arguments import CCSAMTrainingArguments, ClassifierTrainingArguments, LongTailedTrainingArguments
from .classifier_trainer import ClassifierTrainer
from .trainer import CCSAMTrainer

__all__ = [
    "CCSAMTrainer",
    "CCSAMTrainingArguments",
    "ClassifierTrainer",
    "ClassifierTrainingArguments",
    "LongTailedTrainingArguments",
    "adversarial_features",
    "progressive_weight",
]
