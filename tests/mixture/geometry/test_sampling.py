from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optuna_demix.errors import DemixError
from optuna_demix.mixture import Group, MixtureSpace
from tests.mixture.spaces import PAPER_TOKENS, assert_allowed, linear_excess, paper_space, spaces


@settings(max_examples=30)
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
    composition = 0.5 * rng.dirichlet(np.full(k, 0.2), size=k)
    composition[:, 0] += 0.5
    prior = 0.5 * rng.dirichlet(np.full(k, 3.0)) + 0.5 / k
    shares = prior @ composition
    return MixtureSpace(
        names,
        prior=prior,
        lower={"c1": 0.2 * prior[1], names[-1]: prior[-1]},
        upper={names[-1]: prior[-1]},
        composition=composition,
        datasets=names,
        tokens=shares,
        budget=1.0,
        max_epochs=epochs,
        groups=[
            Group("head", ("c1", "c2"), upper=float(prior[1:3].sum()) + 0.02),
            Group(
                "tail", tuple(names[k // 2 :]), 0.9 * float(shares[k // 2 :].sum()), of="shares"
            ),
        ],
    )


@pytest.mark.parametrize(
    ("k", "epochs"), [*((k, e) for k in (3, 7, 17) for e in (1.05, 1.5, 4.0)), (30, 1.05)]
)
def test_no_bound_cap_or_group_is_broken_in_ten_thousand_draws(k: int, epochs: float) -> None:
    space = rich_space(k, epochs)
    w = space.sample(10_000, np.random.default_rng(0))
    assert_allowed(space, w)
    assert linear_excess(space, w) <= 0.0  # not even by a rounding error
    # The draws spread over the polytope: they are not all the same point.
    spread = w.max(axis=0) - w.min(axis=0)
    assert (spread >= 0.2 * (space.max_weights() - space.min_weights())).all()


def test_the_published_usage_cap_holds_in_all_of_ten_thousand_draws() -> None:
    space, free = paper_space(), paper_space(max_epochs=None)
    cap = 4.0 * np.array(PAPER_TOKENS) / sum(PAPER_TOKENS)
    w = space.sample(10_000, np.random.default_rng(0))
    assert int((w > cap).any(axis=1).sum()) == 0
    # Without the cap about every second draw would break it.
    broken = (free.sample(10_000, np.random.default_rng(0)) > cap).any(axis=1)
    assert 0.4 < broken.mean() < 0.65
    # With half general data in every component the same caps bind shares instead of weights.
    composition = 0.5 * np.eye(7)
    composition[:, 0] += 0.5
    mixed = paper_space(composition=composition, datasets=space.components)
    shares = mixed.sample(10_000, np.random.default_rng(0)) @ composition
    assert int((shares > cap + 1e-15).any(axis=1).sum()) == 0
    assert (shares[:, 1:] > 0.5 * cap[1:]).any(axis=0).all()


def test_free_draws_are_dirichlet_around_the_tempered_prior() -> None:
    prior = np.array([0.6, 0.3, 0.1])
    space = MixtureSpace(["a", "b", "c"], prior=prior)
    w = space.sample(40_000, np.random.default_rng(0))
    tempered = prior**0.7 / (prior**0.7).sum()
    np.testing.assert_allclose(w.mean(axis=0), tempered, atol=0.01)
    # Var = m (1 - m) / (strength + 1), averaged over the published strengths.
    strengths = np.logspace(np.log10(0.5), np.log10(5.0), 15)
    variance = tempered * (1 - tempered) * (1.0 / (strengths + 1.0)).mean()
    np.testing.assert_allclose(w.var(axis=0), variance, rtol=0.05)


def test_a_component_without_prior_mass_is_reachable() -> None:
    space = MixtureSpace(["a", "b", "c"], prior=[0.5, 0.5, 0.0])
    w = space.sample(20_000, np.random.default_rng(0))
    assert 0.1 < w[:, 2].max()
    assert w[:, 2].mean() < 0.05


def test_floors_shift_the_draws_instead_of_rejecting_them() -> None:
    space = MixtureSpace([f"c{i}" for i in range(10)], lower=0.05)
    w = space.sample(5_000, np.random.default_rng(0))
    assert w.min() >= 0.05
    np.testing.assert_allclose(w.mean(axis=0), 0.1, atol=0.01)
    assert (w.max(axis=1) > 0.4).mean() > 0.1  # peaked mixtures are still drawn


def test_narrow_groups_keep_their_members_varied() -> None:
    names = [f"c{i}" for i in range(8)]
    space = MixtureSpace(names, groups=[Group("half", tuple(names[:4]), 0.499, 0.501)])
    w = space.sample(2_000, np.random.default_rng(0))
    assert_allowed(space, w)
    assert w.std(axis=0).min() > 0.03


@pytest.mark.parametrize(
    ("space", "point"),
    [
        (MixtureSpace(["a"]), [1.0]),
        (MixtureSpace(["a", "b"], lower=0.5), [0.5, 0.5]),
        (MixtureSpace(["a", "b", "c"], upper=1 / 3), [1 / 3] * 3),
        (MixtureSpace(["a", "b", "c"], lower=[0.2, 0.3, 0], upper=[0.2, 0.3, 1]), [0.2, 0.3, 0.5]),
        (
            MixtureSpace(
                ["a", "b", "c"],
                groups=[Group("g", ("a", "b"), 0.4, 0.4), Group("h", ("b", "c"), 1.0, 1.0)],
            ),
            [0.0, 0.4, 0.6],
        ),
    ],
    ids=["one component", "floors", "ceilings", "pins", "groups"],
)
def test_a_single_allowed_mixture_is_always_drawn(space: MixtureSpace, point: list[float]) -> None:
    rng = np.random.default_rng(0)
    w = space.sample(20, rng)
    np.testing.assert_allclose(w, np.tile(point, (20, 1)), atol=1e-9)
    np.testing.assert_allclose(space.perturb(w, 0.1, rng), w, atol=1e-9)
    np.testing.assert_allclose(space.project(np.eye(len(point))[0]), point, atol=1e-9)
    assert_allowed(space, w)


def test_draws_depend_on_the_generator_alone() -> None:
    one = paper_space().sample(100, np.random.default_rng(7))
    two = paper_space().sample(100, np.random.default_rng(7))
    other = paper_space().sample(100, np.random.default_rng(8))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, other)


def test_numbers_of_draws() -> None:
    rng = np.random.default_rng(0)
    assert paper_space().sample(0, rng).shape == (0, 7)
    assert paper_space().sample(20_000, rng).shape == (20_000, 7)
    with pytest.raises(DemixError, match="negative"):
        paper_space().sample(-1, rng)
