"""Each message that the page on troubleshooting explains is one that the code gives."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
MESSAGES = re.findall(r"^### `(.+)`$", PAGE, re.MULTILINE)


def texts() -> Iterator[str]:
    """Every string of the package, with an ellipsis for what is filled in."""
    for file in (ROOT / "optuna_demix").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [v.value if isinstance(v, ast.Constant) else "…" for v in node.values]
                yield "".join(map(str, parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


@pytest.fixture(scope="module")
def source() -> str:
    return "\n".join(texts())


@pytest.mark.parametrize("message", MESSAGES)
def test_the_message_is_in_the_code(message: str, source: str) -> None:
    assert re.search(re.escape(message).replace("…", "[^\n]*"), source), message


def test_a_message_that_is_not_there_is_found(source: str) -> None:
    assert len(MESSAGES) > 20
    assert not re.search(re.escape("no such … message"), source)


def test_every_heading_of_the_third_level_is_a_message() -> None:
    assert len(re.findall(r"^### ", PAGE, re.MULTILINE)) == len(MESSAGES)
