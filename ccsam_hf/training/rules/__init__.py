"""The rules by which stage 2 retrains the classifier."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ..._shared.registry import Registry
from ..arguments import ClassifierTrainingArguments, refuse_without_effect
from .adversarial import Adversarial, AdversarialReleased
from .base import ClosedRule, Rule, RuleStep
from .closed import NearestClassMean, TauNormalization, class_means, nearest_mean_classifier, tau_normalized
from .disalign import DisAlign, generalized_weights
from .flat import FlatRetraining
from .scaling import LearnableWeightScaling, MiSLAS

RULES: Registry[type[Rule]] = Registry(
    "rule",
    {
        "adversarial": Adversarial,
        "adversarial_released": AdversarialReleased,
        "crt": Rule,
        "crt_flat": FlatRetraining,
        "lws": LearnableWeightScaling,
        "mislas": MiSLAS,
        "disalign": DisAlign,
        "tau_norm": TauNormalization,
        "ncm": NearestClassMean,
    },
)
AnyRule = TypeVar("AnyRule", bound=type[Rule])


def register_rule(name: str) -> Callable[[AnyRule], AnyRule]:
    """Decorator that gives a `Rule` class a name, under which `ClassifierTrainingArguments(rule=name)` finds it.

    Args:
        name: not yet taken.

    Raises:
        ValueError: a taken name, or something else than a `Rule` class.

    Example::

        @register_rule("instance_retraining")
        class InstanceRetraining(Rule):
            sampling = "instance"
    """

    def add(rule: AnyRule) -> AnyRule:
        if not (isinstance(rule, type) and issubclass(rule, Rule)):
            raise ValueError(f"A rule is a class derived from ccsam_hf.training.Rule, not {rule!r}.")
        RULES.register(name)(rule)
        return rule

    return add


def build_rule(args: ClassifierTrainingArguments) -> Rule:
    """The rule that the arguments name; ValueError for an unknown one, or an option that is wrong or has no effect."""
    kind = RULES.find(args.rule)
    options = {option for rule in RULES.values() for option in rule.options}
    refuse_without_effect(args, sorted(options - set(kind.options)), f"with rule={args.rule!r}")
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
    "register_rule",
    "tau_normalized",
]
