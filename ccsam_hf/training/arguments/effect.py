"""Options that would change nothing are refused."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from transformers import TrainingArguments


def default_options(args: TrainingArguments, names: list[str]) -> dict[str, Any]:
    """The default values of the named options."""
    return {f.name: f.default for f in fields(args) if f.name in names}


def refuse_without_effect(args: TrainingArguments, names: list[str], because: str) -> None:
    """Raise if any of the named options was changed although the chosen combination does not use it."""
    changed = {
        name: getattr(args, name)
        for name, value in default_options(args, names).items()
        if getattr(args, name) != value
    }
    if changed:
        settings = ", ".join(f"{name}={value!r}" for name, value in changed.items())
        raise ValueError(f"{settings}: no effect {because}; leave it out or change the combination.")
