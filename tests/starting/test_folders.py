"""Paths as a study names them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from optuna_demix.errors import InputError
from optuna_demix.starting.folders import relative


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("models/code", "models/code"),
        ("models/../data", "data"),
        ("../elsewhere", "/home/elsewhere"),
        (".", "/home/me"),
        ("~x/code", "/home/me/~x/code"),  # else it is the home of a user x
    ],
)
def test_what_lies_beside_a_study_is_named_from_there(path: str, shown: str) -> None:
    assert relative(Path("/home/me", path), Path("/home/me")) == shown


def test_a_path_that_is_no_text_is_refused() -> None:
    with pytest.raises(InputError, match=r"'caf.*' *: the name is not UTF-8"):
        relative(Path(os.fsdecode(b"caf\xe9")), Path("."))
