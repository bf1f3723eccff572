"""Evaluation items cut from held-out text.

Two kinds: passages, scored in bits per byte, and multiple choice between the true end of a piece
of text and the same end with two of its tokens swapped. All choices of an item are equally long
and made of the same tokens, so only their order tells them apart: something that a very small
model learns, and learns best from text of the same kind.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from optuna_demix.quickstart.sources import Document, SourceError, digest
from optuna_demix.quickstart.splits import Split, passages

N_PASSAGES = 24
N_CHOICE_ITEMS = 120
N_CHOICES = 4
_MAX_SWAPS = 200  # attempts at distinct distractors


class Ending(NamedTuple):
    """A piece of text before its end, and the end as tokens that can be swapped."""

    context: str
    tokens: tuple[str, ...]  # joined by nothing: blanks are tokens which stay in place


def passage_items(parts: Split) -> list[dict[str, str]]:
    """Draw the passages of one domain: ``{"id", "text"}``."""
    by_text = {passage.text: passage for passage in passages(parts)}  # some are met twice
    drawn = sorted(by_text.values(), key=lambda passage: digest(passage.id))[:N_PASSAGES]
    if len(drawn) < N_PASSAGES:
        raise SourceError(f"only {len(drawn)} of {N_PASSAGES} held-out passages are new text")
    return [passage._asdict() for passage in drawn]


def choice_items(domain: str, parts: Split) -> list[dict[str, object]]:
    """Draw the multiple-choice items of one domain: ``{"context", "choices", "label"}``.

    The position of the true end (``label``) is balanced over the items.
    """
    trained = "\n\n".join(document.text for document in parts.train)
    endings = {
        ending: None  # a dict keeps the order, so that equal endings appear once, at their first
        for document in parts.heldout
        for ending in ENDINGS[domain](document)
        if ending.context + "".join(ending.tokens) not in trained
    }
    drawn = sorted(endings, key=lambda ending: digest(ending.context + "".join(ending.tokens)))
    labels = [position for position in range(N_CHOICES)] * -(-N_CHOICE_ITEMS // N_CHOICES)
    random.Random(f"labels of {domain}").shuffle(labels)
    items: list[dict[str, object]] = []
    for ending in drawn:
        if len(items) == N_CHOICE_ITEMS:
            return items
        choices = _corrupted(ending)
        if len(choices) == N_CHOICES - 1:
            label = labels[len(items)]
            choices.insert(label, "".join(ending.tokens))
            items.append({"context": ending.context, "choices": choices, "label": label})
    raise SourceError(f"{domain}: only {len(items)} of {N_CHOICE_ITEMS} choice items could be cut")


def _corrupted(ending: Ending) -> list[str]:
    """Swap two tokens, in up to three different ways."""
    true = "".join(ending.tokens)
    rng = random.Random(ending.context + true)  # seeded by the item: independent of all others
    places = [place for place, token in enumerate(ending.tokens) if not token.isspace()]
    found: dict[str, None] = {}
    for _ in range(_MAX_SWAPS):
        tokens = list(ending.tokens)
        one, other = rng.sample(places, 2)
        tokens[one], tokens[other] = tokens[other], tokens[one]
        if (text := "".join(tokens)) != true:
            found[text] = None
        if len(found) == N_CHOICES - 1:
            break
    return list(found)


def _words(tokens: Iterable[str]) -> tuple[str, ...]:
    """Put a blank before each token."""
    return tuple(piece for token in tokens for piece in (" ", token))


def _definitions(document: Document) -> Iterator[Ending]:
    """A synset's words and the beginning of its definition; its last six words."""
    for line in document.text.split("\n"):
        names, _, gloss = line.partition(": ")
        words = gloss.split(";")[0].split()
        if 10 <= len(words) <= 20 and '"' not in gloss.split(";")[0]:
            yield Ending(f"{names.split(',')[0]}: {' '.join(words[:-6])}", _words(words[-6:]))


def _code_lines(document: Document) -> Iterator[Ending]:
    """Two lines of code; the third."""
    lines = document.text.split("\n")
    for first, line in enumerate(lines[2:]):
        context = "\n".join(lines[first : first + 2])
        tokens = re.findall(r"\w+|\s+|[^\w\s]", "\n" + line)
        is_code = re.search(r"[=(\[]", line) and not line.lstrip().startswith("#")
        n_solid = sum(not token.isspace() for token in tokens)
        if is_code and n_solid >= 6 and len(line.strip()) <= 50 and 20 <= len(context) <= 110:
            yield Ending(context, tuple(tokens))


def _theorems(document: Document) -> Iterator[Ending]:
    """The beginning of an assertion; its last ten symbols."""
    for theorem in document.text.split("\n\n"):
        symbols = theorem.split("\n")[-1].split()
        if symbols[0] == "$p" and 14 <= len(symbols) <= 40:
            yield Ending(" ".join(symbols[:-10]), _words(symbols[-10:]))


ENDINGS: dict[str, Callable[[Document], Iterator[Ending]]] = {
    "general": _definitions,
    "code": _code_lines,
    "math": _theorems,
}
