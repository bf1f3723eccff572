"""Stop strings."""

from __future__ import annotations

import itertools
import random

import pytest

from optuna_demix.scoring.generation.stops import StopWatch, is_cut


def cut(text, stops):
    """lm-eval's way."""
    for stop in stops:
        text = text.split(stop)[0]
    return text


def test_a_text_is_cut_when_nothing_that_follows_changes_it():
    rng = random.Random(0)
    letters = "abc"
    endings = ["".join(e) for n in range(4) for e in itertools.product(letters, repeat=n)]
    settled = found = 0
    for _ in range(300):
        stops = ["".join(rng.choices(letters, k=rng.randint(1, 4))) for _ in range(3)]
        text = "".join(rng.choices(letters, k=rng.randint(0, 6)))
        stays = any(s in text for s in stops) and all(
            cut(text + ending, stops) == cut(text, stops) for ending in endings
        )
        assert stays or not is_cut(text, stops), (text, stops)
        settled += stays
        found += is_cut(text, stops)
    assert 50 < 0.9 * settled < found < 250  # hardly any waits without need


def test_an_earlier_stop_string_may_still_begin_in_front():
    assert not is_cut("xbc", ["bcd", "c"])  # "xb", or "x" if a d follows
    assert is_cut("xbc", ["c", "bcd"])
    assert is_cut("xbce", ["bcd", "c"])


class Counted:
    """Decodes bytes, and counts how often."""

    def __init__(self):
        self.lengths = []

    def __call__(self, tokens):
        self.lengths.append(len(tokens))
        return bytes(tokens).decode("utf-8", "replace")


def ends(text, stops, **options):
    """After how many bytes a text ends."""
    decode = Counted()
    watch = StopWatch(decode, stops, **options)
    tokens, waiting = list(text.encode()), False
    for n in range(1, len(tokens) + 1):
        ended, waiting = watch.ended(tokens[:n], waiting=waiting)
        if ended:
            return n, decode
    return None, decode


@pytest.mark.parametrize(
    ("text", "stops", "after"),
    [
        ("one two", ["two", "\n"], 7),
        ("one\n\ntwo", ["\n\n"], 5),
        ("caf\u00e9 at", ["\u00e9"], 5),  # its second byte
        ("plain", ["\n", ""], None),
        ("xbcdy", ["bcd", "c"], 4),  # not at the c
        ("xbcy", ["bcd", "c"], 4),
    ],
)
def test_where_a_text_ends(text, stops, after):
    assert ends(text, stops)[0] == after


def test_characters_that_may_change_are_held_back():
    assert ends("one\ntwo", ["\n"], held_back=2)[0] == 6


def test_most_tokens_are_not_decoded():
    text = "abcdefghij" * 30 + "\n"
    after, decode = ends(text, ["\n"])
    assert after == len(text)
    assert decode.lengths.count(2) == 11  # once for each kind of token
    assert len(decode.lengths) == 13  # and the end: its window, then all of it
