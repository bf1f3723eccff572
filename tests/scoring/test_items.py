from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optuna_demix.scoring.digest import digest
from optuna_demix.scoring.items import join, standard_error, tabulate

pytestmark = pytest.mark.xdist_group("scoring")

_NUMBERS = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=30)


@given(_NUMBERS)
def test_error_of_a_mean(values):
    table = tabulate(values, "mean")
    assert table.weights @ table.values == pytest.approx(np.mean(values), abs=1e-9)
    expected = np.std(values, ddof=1) / math.sqrt(len(values))
    assert standard_error(table) == pytest.approx(expected, abs=1e-9)


@given(st.lists(st.tuples(st.floats(-500, -0.1), st.integers(1, 300)), min_size=2, max_size=30))
def test_bits_per_byte_follow_from_documents(pairs):
    table = tabulate(pairs, "bits_per_byte")
    likelihood, size = map(sum, zip(*pairs, strict=True))
    assert table.weights @ table.values == pytest.approx(-likelihood / size / math.log(2))


def _replicated(draw, score, n=4000):
    rng = random.Random(0)
    return np.std([score(draw(rng)) for _ in range(n)])


@pytest.mark.parametrize("aggregation", ["bits_per_byte", "weighted_perplexity"])
def test_errors_of_ratios_match_new_draws(aggregation):
    def draw(rng):
        sizes = [rng.randint(50, 400) for _ in range(60)]
        return [(-n * rng.gauss(1.0, 0.2), n) for n in sizes]

    def score(pairs):
        table = tabulate(pairs, aggregation)
        if aggregation == "bits_per_byte":
            return table.weights @ table.values
        return np.exp(table.weights @ np.log(table.values))

    rng = random.Random(1)
    typical = np.mean([standard_error(tabulate(draw(rng), aggregation)) for _ in range(50)])
    assert typical == pytest.approx(_replicated(draw, score), rel=0.05)


def test_perplexity_of_log_likelihoods():
    table = tabulate([-1.0, -3.0], "perplexity")
    assert table.values == pytest.approx([math.e, math.e**3])
    assert standard_error(table) == pytest.approx(math.exp(2) * 1.0)


def test_where_there_is_nothing_to_say():
    assert tabulate([], "mean") is None
    assert tabulate([(1, 0), (0, 0)], "f1") is None
    assert math.isnan(standard_error(tabulate([1.0, 0.0, 1.0], None)))
    assert math.isnan(standard_error(tabulate([1.0], "mean")))


@pytest.mark.parametrize(("by_size", "score"), [(True, 0.25), (False, 0.5)])
def test_joined_documents(by_size, score):
    table = join([tabulate([1.0], "mean"), tabulate([0.0, 0.0, 0.0], "mean")], by_size=by_size)
    assert table.weights @ table.values == pytest.approx(score)


class _Plain:
    pass


class _Holder:
    def __init__(self):
        self.held = _Plain()

    def __repr__(self):
        return f"_Holder({self.held!r})"


def test_digest_sees_values_not_places():
    def one(x):
        return x + 1

    def two(x):
        return x + 2

    assert digest({"a": 1, "b": (1, 2)}) == digest({"b": [1, 2], "a": 1})
    assert digest([_Plain(), _Plain()]) == digest([_Plain(), _Plain()])
    one_holder, another = _Holder(), _Holder()  # alive at once: at different addresses
    assert digest(one_holder) == digest(another)
    assert digest(one) != digest(two)
    assert digest({1: math.nan}) == digest({1: math.nan})
    assert len({digest(v) for v in (None, 0, "0", [0], {"0": 0}, 0.5, {0})}) == 6
