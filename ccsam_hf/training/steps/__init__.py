"""How one training step perturbs: the plan of a run, and the three ways to carry it out."""

from .engine import Engine, build_engine
from .plan import PERTURBATION_OPTIONS, PRESETS, PerturbationPlan, resolve_plan

__all__ = ["PERTURBATION_OPTIONS", "PRESETS", "Engine", "PerturbationPlan", "build_engine", "resolve_plan"]
