"""What a run is judged by."""

from __future__ import annotations

from typing import Any

# Of `RunRecord`'s headline, each in 0..1 or None for a group without images.
FIGURES = ("accuracy", "balanced_accuracy", "many", "medium", "few")
Row = dict[str, Any]
