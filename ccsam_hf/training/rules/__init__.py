"""The rules by which stage 2 retrains the classifier."""

from __future__ import annotations

from ..arguments import ClassifierTrainingArguments, refuse_without_effect
from .adversarial import Adversarial, AdversarialReleased
from .base import ClosedRule, Rule, RuleStep
from .closed import NearestClassMean, TauNormalization, class_means, nearest_mean_classifier, tau_normalized
from .disalign import DisAlign, generalized_weights
from .flat import FlatRetraining
from .scaling import LearnableWeightScaling, MiSLAS

RULES: dict[str, type[Rule]] = {
    "adversarial": Adversarial,
    "adversarial_released": AdversarialReleased,
    "crt": Rule,
    "crt_flat": FlatRetraining,
    "lws": LearnableWeightScaling,
    "mislas": MiSLAS,
    "disalign": DisAlign,
    "tau_norm": TauNormalization,
    "ncm": NearestClassMean,
}
RULE_OPTIONS = sorted({option for rule in RULES.values() for option in rule.options})


def build_rule(args: ClassifierTrainingArguments) -> Rule:
    """The rule that the arguments name; ValueError for an unknown one, or an option that is wrong or has no effect."""
    if args.rule not in RULES:
        raise ValueError(f"rule={args.rule!r} is not known; choose one of {', '.join(RULES)}.")
    kind = RULES[args.rule]
    unread = [option for option in RULE_OPTIONS if option not in kind.options]
    refuse_without_effect(args, unread, f"with rule={args.rule!r}")
    return kind(args)


__all__ = [
    "RULES",
    "ClosedRule",
    "Rule",
    "RuleStep",
    "build_rule",
    "class_means",
    "generalized_weights",
    "nearest_mean_classifier",
    "tau_normalized",
]
