from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optuna_demix.errors import ConfigError
from optuna_demix.export import left_out, rounded, sources_of

SHARES = {"web": 0.7, "code": 0.2, "math": 0.1}


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40).filter(lambda s: sum(s) > 1e-3))
def test_rounded_shares_sum_to_one_and_stay_near(shares: list[float]) -> None:
    result = rounded(shares)
    assert math.fsum(result) == pytest.approx(1.0, abs=1e-12)
    assert round(sum(value * 10**6 for value in result)) == 10**6
    total = math.fsum(shares)
    assert all(abs(a - b / total) < 1e-6 for a, b in zip(result, shares, strict=True))
    assert all(value >= 0.0 for value in result)


def test_thirds_give_the_remainder_to_one() -> None:
    assert rounded([1.0, 1.0, 1.0], digits=2) == [0.34, 0.33, 0.33]


def test_shares_of_examples_follow_from_their_lengths() -> None:
    lengths = {"web": 500.0, "code": 2000.0, "math": 250.0}
    sources = sources_of(SHARES, example_tokens=lengths)
    drawn = {s.name: s.example_share for s in sources}
    tokens = {name: drawn[name] * lengths[name] for name in drawn}
    total = sum(tokens.values())
    for name, share in SHARES.items():  # examples so drawn have the tokens that were asked for
        assert tokens[name] / total == pytest.approx(share, abs=1e-5)
    assert sum(drawn.values()) == pytest.approx(1.0, abs=1e-12)


def test_without_lengths_examples_are_as_tokens() -> None:
    assert all(s.example_share == s.share for s in sources_of(SHARES))


def test_epochs_are_those_of_the_budget() -> None:
    sources = sources_of(SHARES, tokens={"web": 1e9, "math": 5e7}, budget=1e9)
    assert [s.epochs for s in sources] == [pytest.approx(0.7), None, pytest.approx(2.0)]
    assert all(s.epochs is None for s in sources_of(SHARES, tokens={"web": 1e9}))


def test_what_rounds_to_nothing_is_left_out() -> None:
    shares = {"web": 1.0 - 1e-9, "code": 1e-9, "math": 0.0}
    sources = sources_of(shares)
    assert [(s.name, s.share) for s in sources] == [("web", 1.0)]
    assert left_out(shares, sources) == {"code": 1e-9}  # math was never in the mixture


def test_a_small_share_of_long_examples_is_drawn_all_the_same() -> None:
    lengths = {"web": 100.0, "books": 1e5}
    _, books = sources_of({"web": 1.0 - 1e-5, "books": 1e-5}, example_tokens=lengths)
    assert books.example_share == pytest.approx(1e-8, rel=1e-3)


def test_examples_are_those_of_the_budget() -> None:
    lengths = {"web": 500.0, "code": 2000.0, "math": 250.0}
    sources = sources_of(SHARES, example_tokens=lengths, budget=1e6)
    assert [s.examples for s in sources] == pytest.approx([1400.0, 100.0, 400.0])
    assert all(s.examples is None for s in sources_of(SHARES, budget=1e6))


def test_paths_hold_the_name_with_its_folders() -> None:
    (source,) = sources_of({"dolma3_cc/health_high": 1.0}, paths="/data/{dataset}.tokens")
    assert source.path == "/data/dolma3_cc/health_high.tokens"


def test_braces_of_a_path_are_kept() -> None:
    (source,) = sources_of({"web": 1.0}, paths="s3://b/{dataset}/tokens {x}")
    assert source.path == "s3://b/web/tokens {x}"


@pytest.mark.parametrize(
    ("shares", "options", "named"),
    [
        ({"web": 0.5}, {}, "sum to 1"),
        ({"web": 1.2, "code": -0.2}, {}, "negative"),
        ({"web": math.nan}, {}, "negative or missing"),
        ({}, {}, "missing"),
        (SHARES, {"paths": "/data/all"}, "{dataset}"),
        (SHARES, {"example_tokens": {"web": 5.0}}, "code, math"),
        (SHARES, {"example_tokens": {"wbe": 5.0}}, "no dataset 'wbe'"),
        (SHARES, {"example_tokens": dict.fromkeys(SHARES, 0.0)}, "positive"),
    ],
)
def test_what_makes_no_sense_is_said(shares: dict, options: dict, named: str) -> None:
    with pytest.raises(ConfigError, match=named.replace("{", r"\{")):
        sources_of(shares, **options)
