"""The long tail of the training data, drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..shots import ShotThresholds
from .record import DataRecord

LONG_TAIL = "figures/long_tail.png"
SHADES = {"many": "0.25", "medium": "0.6", "few": "0.85"}


def draw_long_tail(data: DataRecord, folder: Path) -> Path:
    """Training samples of each class, most frequent first, shot groups told apart by shade."""
    counts = np.array(data.class_counts)
    order = np.argsort(-counts, kind="stable")
    masks = ShotThresholds(**data.thresholds).masks(data.class_counts)
    figure = Figure(figsize=(5.5, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    width = 1.0 if len(counts) > 50 else 0.85
    for name, shade in SHADES.items():
        ranks = np.flatnonzero(masks[name].numpy()[order])
        if len(ranks):
            label = f"{name}-shot ({len(ranks)} classes)"
            line = 0.6 if width < 1 else 0.0
            axes.bar(
                ranks + 1, counts[order][ranks], width, color=shade, label=label, edgecolor="black", linewidth=line
            )
    axes.set(xlabel="classes, most frequent first", ylabel="training samples", yscale="log", xlim=(0, len(counts) + 1))
    axes.legend()
    path = folder / LONG_TAIL
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without the metadata the file does not tell which software drew it, and stays the same under newer ones.
    figure.savefig(path, dpi=150, metadata={"Software": None})
    return path
