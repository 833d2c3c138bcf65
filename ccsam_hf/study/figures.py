"""What a run is judged by."""

from __future__ import annotations

from typing import Any

from ..metrics import ACCURACIES

# Of `RunRecord`'s headline, each in 0..1 or None for a group without images.
FIGURES = ACCURACIES
Row = dict[str, Any]
