"""Train and held-out text of one domain, with nothing in common."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from optuna_demix.quickstart.sources import Document, SourceError, digest

TRAIN_CHARS = 1_000_000
HELDOUT_CHARS = 120_000
PASSAGE_CHARS = (600, 900)
# Shorter lines ("return self") recur everywhere and give nothing away.
SHARED_LINE_CHARS = 40


class Split(NamedTuple):
    """The two parts of a domain; no document is in both."""

    train: list[Document]
    heldout: list[Document]


def split(domain: str, documents: Iterable[Document]) -> Split:
    """Take documents in the given order: first the held-out ones, then those to train on.

    Raises:
        SourceError: if the documents run out before both parts are full.
    """
    heldout: list[Document] = []
    train: list[Document] = []
    n_heldout = n_train = 0
    seen: set[str] = set()
    for document in documents:
        if (key := digest(document.text)) in seen:
            continue
        seen.add(key)
        if n_heldout < HELDOUT_CHARS:
            heldout.append(document)
            n_heldout += len(document.text)
        elif n_train < TRAIN_CHARS:
            train.append(document)
            n_train += len(document.text)
        else:
            return Split(train, heldout)
    if n_train < TRAIN_CHARS:
        raise SourceError(
            f"domain {domain!r}: found only {n_heldout + n_train:,} of the needed "
            f"{HELDOUT_CHARS + TRAIN_CHARS:,} characters; is all that it is read from installed?"
        )
    return Split(train, heldout)


def telling_lines(text: str) -> set[str]:
    """The lines that are long enough to be recognized when met again, without indentation."""
    return {line.strip() for line in text.split("\n") if len(line.strip()) >= SHARED_LINE_CHARS}


def passages(parts: Split) -> Iterator[Document]:
    """Cut the held-out documents into passages that share no telling line with training text."""
    trained = set().union(*(telling_lines(document.text) for document in parts.train))
    for document in parts.heldout:
        for number, lines in enumerate(_cut(document.text)):
            if telling_lines(lines).isdisjoint(trained):
                yield Document(f"{document.id}#{number}", _shorten(lines))


def _cut(text: str) -> Iterator[str]:
    """Cut a text into runs of whole lines, each at least as long as a passage has to be."""
    run = ""
    for line in text.split("\n"):
        run += line + "\n"
        if len(run) >= PASSAGE_CHARS[0]:
            yield run.strip("\n")
            run = ""


def _shorten(text: str) -> str:
    """Cut an over-long passage (a paragraph may be one line) after its last whole word."""
    longest = PASSAGE_CHARS[1]
    return text if len(text) <= longest else text[:longest].rsplit(maxsplit=1)[0]
