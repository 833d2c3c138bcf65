"""One canvas for all figures: no pyplot and no global state, colours safe for colour-blind readers.

What stands in one figure is told apart by marker, line or hatch as well as by colour, so that a grey print can be read.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .files import replacing

# M. Okabe and K. Ito, Color Universal Design (2008), without the yellow, which is too light for lines.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", "--", "-.", ":")
HATCHES = ("", "///", "...", "xxx", "\\\\\\", "+++")
GREYS = ("0.7", "0.95", "0.45", "1.0", "0.8", "0.55")
GROUP_STYLES: dict[str, dict[str, Any]] = {
    "all": {"color": "#000000", "linestyle": "-", "marker": "D"},
    "many": {"color": "#0072B2", "linestyle": "--", "marker": "o"},
    "medium": {"color": "#009E73", "linestyle": "-.", "marker": "s"},
    "few": {"color": "#D55E00", "linestyle": ":", "marker": "^"},
}


def canvas(
    rows: int = 1, columns: int = 1, *, width: float = 5.5, height: float = 3.6, **subplots: Any
) -> tuple[Figure, Any]:
    """A figure with its own Agg canvas and its axes as an array [rows, columns].

    Args:
        rows: rows of axes.
        columns: columns of axes.
        width: inches of the whole figure.
        height: inches of the whole figure.
        subplots: options of `Figure.subplots`, such as sharex or height_ratios.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **subplots)


def save_figure(figure: Figure, path: str | Path, dpi: int = 150) -> Path:
    """Write the figure in one move, without matplotlib's version in a PNG, so that equal figures are equal files."""
    options: dict[str, Any] = {"metadata": {"Software": None}} if Path(path).suffix == ".png" else {}
    with replacing(path) as part:
        figure.savefig(part, dpi=dpi, **options)
    return Path(path)


def arm_styles(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Colour, marker and line of each arm of a comparison; no two of 56 arms share colour and marker.

    Call it once with all arms, so that an arm looks the same in every figure.
    """
    return {
        name: {
            "color": COLOURS[place % len(COLOURS)],
            "marker": MARKERS[place % len(MARKERS)],
            "linestyle": LINES[place % len(LINES)],
        }
        for place, name in enumerate(dict.fromkeys(names))
    }


def bar_style(place: int) -> dict[str, Any]:
    """Grey and hatch of the bars at a place in the legend, counted from 0."""
    shade, hatch = GREYS[place % len(GREYS)], HATCHES[place % len(HATCHES)]
    return {"color": shade, "hatch": hatch, "edgecolor": "black", "linewidth": 0.6}
