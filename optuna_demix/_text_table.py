"""Tables of aligned plain text, as commands print them."""

from __future__ import annotations

from collections.abc import Sequence


def text_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table: the first column is aligned to the left, all others to the right.

    Args:
        rows: Cells (rows, columns), those of a header included; at least one row.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def ruled_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table, see :func:`text_table`, with a rule under its header."""
    head, *lines = text_table([header, *rows])
    return "\n".join([head, "-" * max(map(len, [head, *lines])), *lines])
