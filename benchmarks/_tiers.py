"""Eight datasets in tiers of quality, made from the text of the quickstart.

They stand for the candidates of the paper (arXiv 2602.00747, Table 1), where code and mathematics
come in tiers: the best text is scarce, the plentiful text is poor. Nothing is downloaded, and the
same installation always gives the same bytes.

- ``general``: glosses, old prose and docstrings.
- ``code_very_high``: source files, so few that a run repeats them.
- ``code_high``: more source files.
- ``code_medium``: the rest, each under a licence header, its lines shuffled, a tenth of its
  characters replaced.
- ``math_very_high``: theorems. ``math_high``: more, shuffled, 3 % of the characters replaced.
  ``math_medium``: the rest, shuffled, 20 % replaced.
- ``junk``: base64, tables of numbers, and web pages of navigation without content.
"""

from __future__ import annotations

import base64
import json
import random
import string
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

TIERS = (
    "general",
    "code_very_high",
    "code_high",
    "code_medium",
    "math_very_high",
    "math_high",
    "math_medium",
    "junk",
)
PRIOR = {
    "general": 0.40,
    "code_very_high": 0.02,
    "code_high": 0.08,
    "code_medium": 0.16,
    "math_very_high": 0.04,
    "math_high": 0.07,
    "math_medium": 0.09,
    "junk": 0.14,
}
"""Natural proportions: the better, the scarcer."""

BASE_SHARES = {
    "general": 0.7,
    "code_medium": 0.1,
    "math_medium": 0.1,
    "junk": 0.1,
}
"""What the base is trained on: general text, and what is plentiful."""

CLEAN = {
    "general": 1.0,
    "code_very_high": 1.0,
    "code_high": 1.0,
    "math_very_high": 1.0,
}
"""What someone who looks at the datasets would take, in equal parts."""

_CODE_VERY_HIGH, _CODE_HIGH = 60_000, 400_000  # characters
_MATH_VERY_HIGH, _MATH_HIGH = 300_000, 350_000
_JUNK = 400_000
_ALPHABET = string.ascii_letters + string.digits + string.punctuation + " \n"
_LICENCE = """# Copyright (c) {year} {owner}. All rights reserved.
#
# Redistribution and use in source and binary forms, with or without modification, are permitted
# provided that the conditions in the file of this name in the root of the source tree are met.
# This software is provided "as is", without warranty of any kind, express or implied.
"""
_OWNERS = ("The Authors", "Example Corporation", "Contributors", "A. N. Other")


def write_tiers(source: Path, target: Path) -> None:
    """Write ``<tier>.jsonl`` for all tiers.

    Args:
        source: Folder of the quickstart's text, ``<domain>/train.jsonl``.
        target: Folder to write to; a file that holds the same stays as it is.
    """
    target.mkdir(parents=True, exist_ok=True)
    for name, documents in tiers(source).items():
        rows = (json.dumps({"id": f"{name}/{i}", "text": t}) for i, t in enumerate(documents))
        text = "".join(f"{row}\n" for row in rows)
        file = target / f"{name}.jsonl"
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")


def tiers(source: Path) -> Mapping[str, list[str]]:
    """The documents of every tier, by its name."""
    code, code_high, code_rest = _cut(_read(source, "code"), _CODE_VERY_HIGH, _CODE_HIGH)
    math, math_high, math_rest = _cut(_read(source, "math"), _MATH_VERY_HIGH, _MATH_HIGH)
    general = [text for domain in ("general", "prose", "docs") for text in _read(source, domain)]
    random.Random("general").shuffle(general)
    return {
        "general": general,
        "code_very_high": code,
        "code_high": code_high,
        "code_medium": _each(code_rest, "code_medium", _poor_code),
        "math_very_high": math,
        "math_high": _each(math_high, "math_high", lambda t, rng: _poor(t, rng, 0.03)),
        "math_medium": _each(math_rest, "math_medium", lambda t, rng: _poor(t, rng, 0.2)),
        "junk": list(_junk()),
    }


def _read(source: Path, domain: str) -> list[str]:
    file = source / domain / "train.jsonl"
    with file.open(encoding="utf-8") as lines:
        return [str(json.loads(line)["text"]) for line in lines]


def _cut(documents: list[str], *sizes: int) -> list[list[str]]:
    """Documents in parts of so many characters, and the rest."""
    parts: list[list[str]] = []
    left = iter(documents)
    for size in sizes:
        part: list[str] = []
        while sum(map(len, part)) < size:
            part.append(next(left))
        parts.append(part)
    return [*parts, list(left)]


def _each(
    documents: list[str], name: str, change: Callable[[str, random.Random], str]
) -> list[str]:
    rng = random.Random(name)
    return [change(text, rng) for text in documents]


def _poor_code(text: str, rng: random.Random) -> str:
    header = _LICENCE.format(year=rng.randint(1991, 2024), owner=rng.choice(_OWNERS))
    return header + _poor(text, rng, 0.1)


def _poor(text: str, rng: random.Random, noise: float) -> str:
    """The lines in another order, with a part of the characters replaced."""
    lines = text.split("\n")
    rng.shuffle(lines)
    return "".join(
        rng.choice(_ALPHABET) if rng.random() < noise else character
        for character in "\n".join(lines)
    )


def _junk() -> Iterator[str]:
    """Documents of three kinds in turn."""
    rng = random.Random("junk")
    kinds = (_base64, _table, _page)
    done = 0
    while done < _JUNK:
        for kind in kinds:
            text = kind(rng)
            done += len(text)
            yield text


def _base64(rng: random.Random) -> str:
    return base64.encodebytes(rng.randbytes(1200)).decode()


def _table(rng: random.Random) -> str:
    width = rng.randint(4, 9)
    head = ",".join(f"col{i}" for i in range(width))
    rows = [",".join(f"{rng.gauss(0, 100):.3f}" for _ in range(width)) for _ in range(40)]
    return "\n".join([head, *rows])


def _page(rng: random.Random) -> str:
    words = ("home", "login", "cart", "next", "share", "cookies", "accept", "menu", "ads", "top")
    links = [
        f'<li class="nav-{rng.randint(1, 99)}"><a href="/{rng.randrange(10**6)}">'
        f"{rng.choice(words)}</a></li>"
        for _ in range(30)
    ]
    return "<html><body><ul>\n" + "\n".join(links) + "\n</ul></body></html>"
