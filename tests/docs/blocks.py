"""The code blocks of a document, fenced or indented, as its reader sees them."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
# A list's own paragraphs look the same; one of them would be run as commands, and fail.
_INDENTED = re.compile(r"(?<=\n\n)(?: {4}.*\n)(?:(?: {4}.*)?\n)*")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One block of code.

    Attributes:
        document: Path of the document, from the repository's root.
        section: The heading it stands under, without marks.
        line: Line of its first line.
        language: What its fence says; ``sh`` for an indented block.
        text: The code.
    """

    document: str
    section: str
    line: int
    language: str
    text: str

    @property
    def place(self) -> tuple[str, str]:
        """Where it is, in words that outlive a change further up."""
        return self.document, self.section

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


def blocks_of(document: Path, root: Path) -> list[Block]:
    """The blocks of a document, in their order."""
    name = document.relative_to(root).as_posix()
    return list(read_blocks(name, document.read_text("utf-8")))


def read_blocks(name: str, text: str) -> Iterator[Block]:
    """The blocks of a text: the fenced ones, then the indented ones between them."""
    # Fenced code is blanked, line by line, so that it holds neither headings nor indented blocks.
    rest = _FENCE.sub(lambda fence: "\n" * fence[0].count("\n"), text)
    assert "```" not in rest, f"{name}: a fence is not closed"
    headings = [(rest.count("\n", 0, h.start()) + 1, h[1]) for h in _HEADING.finditer(rest)]

    def block(line: int, language: str, code: str) -> Block:
        section = [title for start, title in headings if start < line][-1:]
        title = section[0].translate(str.maketrans("", "", "`*")) if section else ""
        return Block(name, title, line, language, textwrap.dedent(code))

    for fence in _FENCE.finditer(text):
        yield block(text.count("\n", 0, fence.start()) + 2, fence[2], fence[3])
    for indented in _INDENTED.finditer(rest):
        yield block(rest.count("\n", 0, indented.start()) + 1, "sh", indented[0].rstrip() + "\n")
