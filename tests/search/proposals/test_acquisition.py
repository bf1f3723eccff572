from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from optuna_demix.search.proposals.acquisition import (
    Composite,
    best_untaken,
    nearest_distance,
    tchebycheff,
)
from optuna_demix.surrogate._data import finite_scores

scores = arrays(float, (12, 2), elements=st.floats(-5, 5, width=16))


@settings(deadline=None)
@given(scores)
def test_rank_is_the_mean_share_of_the_reference_that_is_beaten(reference: np.ndarray) -> None:
    merit = Composite("rank", reference)(reference)
    assert np.all((merit >= -1e-12) & (merit <= 1 + 1e-12))
    better = reference + 1e-3
    assert np.all(Composite("rank", reference)(better) >= merit - 1e-12)


def test_rank_of_a_known_reference() -> None:
    reference = np.array([[0.0, 0.0], [1.0, 3.0], [2.0, 1.0]])
    merit = Composite("rank", reference)
    assert merit(reference) == pytest.approx([0.0, 0.75, 0.75])
    assert merit(np.array([[0.5, 0.5]])) == pytest.approx([0.25])


def test_rank_still_tells_candidates_apart_that_beat_every_reference() -> None:
    merit = Composite("rank", np.array([[0.0], [1.0]]))
    assert 1.0 < merit(np.array([[1.1]]))[0] < merit(np.array([[1.2]]))[0]


def test_what_is_told_is_a_share_of_each_objective() -> None:
    ranked = Composite("rank", np.array([[0.0, 0.0], [1.0, 4.0]]))
    beyond = np.array([[1.5, 1.0], [-3.0, 1.0], [9.0, 9.0], [0.5, 1.0]])
    assert ranked(beyond)[0] == pytest.approx(0.875)  # 1.5 and 0.25
    assert ranked.told(beyond) == pytest.approx([0.625, 0.125, 1.0, 0.375])
    assert Composite("mean", beyond).told(beyond) == pytest.approx(
        Composite("mean", beyond)(beyond)
    )


def test_the_best_is_that_of_what_is_told_then_of_the_merit() -> None:
    ranked = Composite("rank", np.array([[0.0, 0.0], [1.0, 1.0]]))
    far, even = [3.0, 0.1], [0.7, 0.7]  # merits 1.55 and 0.7, told 0.55 and 0.7
    assert ranked.best(np.array([far, even]), lambda values: values) == 1
    assert ranked.best(np.array([[1.1, 1.0], [1.2, 1.0]]), lambda values: values) == 1
    assert ranked.best(np.array([even, even]), lambda values: values) == 0


def test_weights_pick_their_objective() -> None:
    Y = np.array([[1.0, 5.0], [2.0, 3.0]])
    assert Composite([0, 2], Y)(Y) == pytest.approx([5, 3])
    assert Composite("mean", Y)(Y) == pytest.approx([3, 2.5])


@pytest.mark.parametrize("how", ["best", [1.0], [-1.0, 2.0], [0.0, 0.0], [np.nan, 1.0]])
def test_bad_composites_are_refused(how: object) -> None:
    with pytest.raises(ValueError, match="composite"):
        Composite(how, np.zeros((3, 2)))  # type: ignore[arg-type]


def test_tchebycheff_reaches_the_hollow_of_a_front() -> None:
    # The middle point is best for even weights, although it lies below the line of the ends.
    front = np.array([[1.0, 0.0], [0.45, 0.45], [0.0, 1.0]])
    assert np.argmax(tchebycheff(front, np.array([0.5, 0.5]))) == 1
    assert np.argmax(front @ [0.5, 0.5]) != 1


def test_best_untaken_keeps_its_distance() -> None:
    X = np.array([[0.5, 0.5], [0.51, 0.49], [0.8, 0.2]])
    merit = np.array([3.0, 2.0, 1.0])
    assert best_untaken(merit, X, np.empty((0, 2)), min_distance=0.05) == 0
    assert best_untaken(merit, X, X[:1], min_distance=0.05) == 2
    assert best_untaken(merit, X, X, min_distance=0.05) == 0  # all taken: the farthest, here any


def test_distance_is_the_share_of_data_that_moves() -> None:
    assert nearest_distance(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0], [0.7, 0.3]])) == (
        pytest.approx([0.3])
    )


def test_infinite_scores_rank_last_and_stay_near() -> None:
    Y = finite_scores([[1.0], [3.0], [-np.inf], [np.inf], [np.nan]])[:, 0]
    assert Y[2] < 1.0 and 3.0 < Y[3] < 4.0 and np.isnan(Y[4])
