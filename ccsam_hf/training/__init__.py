"""The two trainers of CC-SAM and their arguments."""

from .adversarial import adversarial_features, progressive_weight
from .arguments import (
    CCSAMTrainingArguments,
    ClassifierTrainingArguments,
    LongTailedTrainingArguments,
    default_options,
)
from .base import LongTailedTrainer
from .classifier_trainer import ClassifierTrainer
from .rules import RULES, Rule, register_rule
from .steps import PERTURBATION_OPTIONS, PRESETS
from .trainer import CCSAMTrainer

__all__ = [
    "PERTURBATION_OPTIONS",
    "PRESETS",
    "RULES",
    "CCSAMTrainer",
    "CCSAMTrainingArguments",
    "ClassifierTrainer",
    "ClassifierTrainingArguments",
    "LongTailedTrainer",
    "LongTailedTrainingArguments",
    "Rule",
    "adversarial_features",
    "default_options",
    "progressive_weight",
    "register_rule",
]
