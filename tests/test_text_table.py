from __future__ import annotations

import pytest

from optuna_demix._text_table import text_table


def test_columns_are_aligned_without_trailing_space() -> None:
    rows = [["", "score", ""], ["a long name", "0.5", "x"], ["b", "12.25", ""]]
    assert text_table(rows) == [
        "             score",
        "a long name    0.5  x",
        "b            12.25",
    ]


def test_a_row_that_lacks_a_cell_is_refused() -> None:
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        text_table([["a", "b"], ["c"]])
