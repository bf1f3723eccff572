from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mixture_spaces import assert_allowed, linear_excess, spaces

from optuna_demix.mixture import Group, MixtureSpace


@settings(max_examples=60, deadline=None)
@given(spaces(), st.integers(0, 2**32 - 1))
def test_every_draw_is_allowed(space: MixtureSpace, seed: int) -> None:
    w = space.sample(300, np.random.default_rng(seed))
    assert w.shape == (300, len(space))
    assert_allowed(space, w)
    assert np.all(space.contains(w))


def rich_space(k: int, epochs: float) -> MixtureSpace:
    """Half general data in every component, a cap on every dataset, groups, a pin, a floor."""
    rng = np.random.default_rng(k)
    names = [f"c{i}" for i in range(k)]
    composition = 0.5 * np.eye(k)
    composition[:, 0] += 0.5
    composition[1:, 1:] += 0.05 / (k - 1) - 0.05 * np.eye(k - 1)
    prior = 0.5 * rng.dirichlet(np.full(k, 3.0)) + 0.5 / k
    return MixtureSpace(
        names,
        prior=prior,
        lower={"c1": 0.2 * prior[1], names[-1]: prior[-1]},
        upper={names[-1]: prior[-1]},
        composition=composition,
        datasets=names,
        tokens=prior @ composition,
        budget=1.0,
        max_epochs=epochs,
        groups=[
            Group("head", tuple(names[1:3]), upper=float(prior[1:3].sum()) + 0.05),
            Group("tail", tuple(names[k // 2 :]), lower=float(prior[k // 2 :].sum()), of="shares")
            if k > 20
            else Group("tail", tuple(names[-2:]), lower=float(prior[-2:].sum()) / 2),
        ],
    )


@pytest.mark.parametrize("epochs", [1.05, 1.5, 4.0])
@pytest.mark.parametrize("k", [3, 7, 17, 50])
def test_no_bound_cap_or_group_is_broken_in_ten_thousand_draws(k: int, epochs: float) -> None:
    groups = [] if k > 20 else None
    space = rich_space(k, epochs) if groups is None else _without_share_group(k, epochs)
    w = space.sample(10_000, np.random.default_rng(0))
    assert_allowed(space, w)
    assert linear_excess(space, w) <= 0.0  # not even by a rounding error
    free = space.max_weights() - space.min_weights() > 1e-6
    assert (w.std(axis=0)[free] > 0).all()


def _without_share_group(k: int, epochs: float) -> MixtureSpace:
    return rich_space(k, epochs)
