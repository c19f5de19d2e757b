"""A table as lines of text: wrapped between words where it is too wide, and no word of it is ever cut."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

GAP = 3  # spaces between two columns


def lines(head: Sequence[str], rows: Sequence[Sequence[str]], width: int | None = None) -> list[str]:
    """Return the table's lines, the first ones its head.

    Where not even the longest words fit into `width` columns next to each other, each row becomes a block of its own,
    a line for each cell: an endpoint that was cut or broken cannot be pasted.
    """
    widths = _widths([head, *rows], width)
    if widths is None:
        label = max(map(len, head))
        blocks = [[f"{name.ljust(label + GAP)}{cell}" for name, cell in zip(head, row, strict=True)] for row in rows]
        return [line for block in blocks for line in (*block, "")][:-1]
    return [line for row in [head, *rows] for line in _wrapped(row, widths)]


def _widths(rows: Sequence[Sequence[str]], width: int | None) -> list[int] | None:
    """Each column's width; None where the table cannot be as narrow as `width`."""
    columns = list(zip(*rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    if width is None:
        return widths
    least = [max((len(word) for cell in column for word in cell.split()), default=0) for column in columns]
    available = width - GAP * (len(widths) - 1)
    while sum(widths) > available:
        spare = [now - need for now, need in zip(widths, least, strict=True)]
        widest = spare.index(max(spare))
        if not spare[widest]:
            return None
        widths[widest] -= 1
    return widths


def _wrapped(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    cells = [
        textwrap.wrap(cell, width, break_long_words=False, break_on_hyphens=False) if len(cell) > width else [cell]
        for cell, width in zip(row, widths, strict=True)
    ]
    found = []
    for number in range(max(map(len, cells))):
        parts = [cell[number] if number < len(cell) else "" for cell in cells]
        found.append((" " * GAP).join(map(str.ljust, parts, widths)).rstrip())
    return found
