"""Both proxies side by side: the table, and the pairs of mixtures they disagree about."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from optuna_demix.errors import InputError
from optuna_demix.study import ProxyComparison, compare_proxies

NAMES = ("prior", "uniform", "recommended")
MERGED = [[0.1, 0.3], [0.2, 0.4], [0.5, 0.5]]  # means 0.2, 0.3, 0.5
MIXED = [[0.1, 0.2], [0.4, 0.5], [0.3, 0.4]]  # means 0.15, 0.45, 0.35


def mean(Y: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.asarray(Y.mean(axis=1))


def compared(**options: Any) -> ProxyComparison:
    return compare_proxies(MERGED, MIXED, NAMES, ("code", "math"), mean, **options)


def test_every_pair_they_disagree_about_is_named() -> None:
    (line,) = compared().warnings
    assert line == (
        "the merged proxies say that recommended is better than uniform (composite 0.500, 0.300), "
        "the probability mixture says the opposite (0.350, 0.450)"
    )
    reverse = compare_proxies(MERGED, [[-a, -b] for a, b in MERGED], NAMES, ("a", "b"), mean)
    assert len(reverse.warnings) == 3


@pytest.mark.parametrize(("noise", "said"), [(0.09, 1), (0.15, 0), (0.25, 0)])
def test_differences_within_the_noise_of_either_are_no_disagreement(
    noise: float, said: int
) -> None:
    assert len(compared(noise=noise).warnings) == said


def test_equal_and_undefined_composites_do_not_disagree() -> None:
    same = compare_proxies([[1.0], [1.0]], [[1.0], [2.0]], ("a", "b"), ("y",), mean)
    lost = compare_proxies([[1.0], [np.nan]], [[1.0], [2.0]], ("a", "b"), ("y",), mean)
    assert same.warnings == lost.warnings == ()
    assert json.loads(json.dumps(lost.to_dict(), allow_nan=False))["merged"]["b"] == {
        "objectives": {"y": None},
        "composite": None,
    }


def test_each_proxy_can_have_a_composite_of_its_own() -> None:
    found = compared(probability_composite=lambda Y: -mean(Y))
    assert found.probabilities["uniform"].composite == pytest.approx(-0.45)
    assert found.merged["uniform"].composite == pytest.approx(0.3)
    assert len(found.warnings) == 2


def test_the_table_shows_both_scores_of_every_mixture() -> None:
    lines = str(compared()).splitlines()
    assert lines[0].split() == [
        "code", "by", "prob.", "math", "by", "prob.", "composite", "by", "prob."
    ]  # fmt: skip
    assert lines[4].split() == [
        "recommended", "0.5000", "0.3000", "0.5000", "0.4000", "0.500", "0.350"
    ]  # fmt: skip
    assert lines[-1].startswith("warning: the merged proxies say")


def test_scores_of_another_shape_are_refused() -> None:
    with pytest.raises(InputError, match="probabilities: the scores are of shape"):
        compare_proxies(MERGED, MIXED[:2], NAMES, ("code", "math"), mean)
    with pytest.raises(InputError, match="0 mixtures"):
        compare_proxies(np.empty((0, 2)), np.empty((0, 2)), (), ("code", "math"), mean)
