"""Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

RULES = {"l": "---", "r": "---:", "c": ":---:"}
MISSING = "–"


def escaped(cell: object) -> str:
    """A cell's text on one line, with | escaped."""
    return str(cell).replace("|", "\\|").replace("\n", " ")


def markdown_table(
    head: Sequence[object], rows: Iterable[Sequence[object]], *, align: str | None = None, missing: str = MISSING
) -> str:
    """A Markdown table without a line break at its end.

    Args:
        head: the columns' titles.
        rows: the cells of each row, as many as there are columns; None is a missing cell.
        align: a letter for each column: l(eft), r(ight) or c(entre). All are left-aligned when it is None.
        missing: text of a missing cell.

    Raises:
        ValueError: a row or `align` of another length, or another letter in `align`.

    Example:
        >>> print(markdown_table(["method", "few"], [["a|b", 31.5], ["c", None]], align="lr"))
        | method | few |
        | --- | ---: |
        | a\\|b | 31.5 |
        | c | – |
    """
    letters = "l" * len(head) if align is None else align
    if len(letters) != len(head) or not set(letters) <= set(RULES):
        raise ValueError(f"align={align!r} must have one of l, r, c for each of the {len(head)} columns.")
    lines = [_line([escaped(title) for title in head]), _line([RULES[letter] for letter in letters])]
    for row in rows:
        if len(row) != len(head):
            raise ValueError(f"A row has {len(row)} cells for {len(head)} columns: {list(row)}.")
        lines.append(_line([missing if cell is None else escaped(cell) for cell in row]))
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
