"""Runs in phases."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optuna_demix.errors import ConfigError, ConstraintError
from optuna_demix.mixture import MixtureSpace, Phase

SETS = ["web", "code", "math"]


def late_space(**changes: Any) -> MixtureSpace:
    """A long fixed phase, a short one that is searched, and few tokens of maths."""
    options: dict[str, Any] = {"tokens": {"math": 4e8}, "budget": 1e10, "max_epochs": {"math": 4}}
    return MixtureSpace.phases(
        [
            Phase("stable", 0.9, MixtureSpace(SETS, prior=[8, 1, 1]), fixed=True),
            Phase("decay", 0.1, MixtureSpace(SETS, upper={"web": 0.5}, min_weight=0.05)),
        ],
        **{**options, **changes},
    )


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(2, 4), st.integers(2, 12))
def test_epochs_of_all_phases_together_hold_in_every_move(seed: int, n: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    names = [f"s{i}" for i in range(k)]
    shares = rng.dirichlet(np.ones(n))
    hidden = rng.dirichlet(np.ones(k), size=n)  # a run that uses each set up to its cap
    fixed = rng.random(n) < 0.4
    fixed[int(rng.integers(n))] = False
    space = MixtureSpace.phases(
        [
            Phase(f"p{i}", shares[i], MixtureSpace(names, prior=hidden[i]), fixed=bool(fixed[i]))
            for i in range(n)
        ],
        tokens=(shares @ hidden) * (1 + rng.random(k)) / 4,
        budget=1.0,
        max_epochs=4,
    )
    W = space.sample(50, rng)
    W = np.concatenate([W, space.perturb(W, 0.1, rng), space.project(rng.random((5, len(space))))])
    assert space.contains(W).all()
    run = np.zeros((len(W), k))
    for row, w in zip(run, W, strict=True):
        for (name, own), share in zip(space.by_phase(w).items(), shares, strict=True):
            assert own.sum() == pytest.approx(1.0) and (own >= -1e-12).all()
            row += share * own
            if fixed[int(name[1:])]:
                assert own == pytest.approx(hidden[int(name[1:])])
    assert space.data_shares(W) == pytest.approx(run, abs=1e-9)
    assert (run <= space.caps + 1e-9).all()


def test_one_searched_phase_is_named_as_its_components_and_weighs_them_alone() -> None:
    space = late_space()
    assert space.components == ("web", "code", "math")
    w = space.sample(100, np.random.default_rng(0))
    assert w.sum(axis=1) == pytest.approx(np.ones(100))
    assert (w[:, 0] <= 0.5 + 1e-9).all()
    assert (w >= 0.05 - 1e-9).all() | (w <= 1e-12).any()
    assert (space.data_shares(w)[:, 2] <= 0.16 + 1e-9).all()  # 0.09 of it in the fixed phase
    assert w[:, 2].max() > 0.6


def test_phases_with_the_same_components_have_their_name_before_them() -> None:
    space = MixtureSpace.phases(
        [Phase("a", 0.7, MixtureSpace(SETS)), Phase("b", 0.3, MixtureSpace(SETS, prior=[1, 1, 8]))]
    )
    assert space.components[0] == "a/web" and space.components[-1] == "b/math"
    assert space.prior[3:] == pytest.approx([0.03, 0.03, 0.24])
    assert space.uniform == pytest.approx([0.7 / 3] * 3 + [0.1] * 3)
    assert space.by_phase(space.prior)["b"] == pytest.approx([0.1, 0.1, 0.8])


def test_phases_may_have_components_of_their_own() -> None:
    early = MixtureSpace(["w1", "c1"], composition={"w1": {"web": 1}, "c1": {"code": 1}})
    late = MixtureSpace(["c2", "m2"], composition={"c2": {"code": 1}, "m2": {"math": 1}})
    space = MixtureSpace.phases(
        [Phase("early", 0.5, early), Phase("late", 0.5, late)],
        groups=[{"name": "code", "members": ["code"], "upper": 0.3, "of": "shares"}],
    )
    assert space.components == ("w1", "c1", "c2", "m2")
    W = space.sample(200, np.random.default_rng(0))
    assert (W[:, 1] + W[:, 2] <= 0.3 + 1e-9).all()
    assert space.data_shares(W[0]) == pytest.approx([W[0, 0], W[0, 1] + W[0, 2], W[0, 3]])


def test_a_sum_over_the_run_counts_what_is_fixed() -> None:
    space = late_space(
        groups=[{"name": "stem", "members": ["code", "math"], "lower": 0.26, "of": "shares"}],
        max_epochs=None,
    )
    W = space.sample(200, np.random.default_rng(0))
    assert (0.18 + 0.1 * (W[:, 1] + W[:, 2]) >= 0.26 - 1e-9).all()
    assert space.broken([0.5, 0.5, 0.0]) == [
        "lower bound 0.26 of group 'stem' (shares of 'code' + 'math') (0.23 given)"
    ]


def test_it_survives_pickling_and_differs_from_other_runs() -> None:
    space = late_space()
    assert pickle.loads(pickle.dumps(space)) == space
    assert space != late_space(max_epochs={"math": 5})
    assert space != MixtureSpace(SETS, upper={"web": 0.5}, min_weight=0.05)


def test_a_pinned_weight_keeps_the_phases() -> None:
    pinned = late_space().pin({"math": 0.6})
    assert pinned.by_phase(pinned.prior)["decay"][2] == pytest.approx(0.6)
    with pytest.raises(ConstraintError, match="cap 0.16 on the share of 'math'"):
        late_space().pin({"math": 0.8})


def test_any_sampler_proposes_runs() -> None:
    space = late_space()
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    weights = space.suggest(study.ask())
    assert sum(weights.values()) == pytest.approx(1.0) and space.contains(list(weights.values()))


def phase(**fields: Any) -> dict[str, Any]:
    return {"name": "a", "share": 1.0, "mixture": MixtureSpace(SETS), **fields}


@pytest.mark.parametrize(
    ("phases", "said"),
    [
        ([], "at least one is needed"),
        ([phase(share=0.5)], "sum to 0.5; they must sum to 1"),
        ([phase(share=0.0)], "has no share of the budget"),
        ([phase(share=0.5), phase(share=0.5)], "'a' is named twice"),
        ([phase(fixed=True)], "all phases are fixed"),
        ([phase(mixture=SETS)], "its mixture is a MixtureSpace"),
        ([phase(name="")], "a phase needs a non-empty name"),
        ([{"name": "a", "share": 1}], "phase 'a' has no field 'mixture'"),
        ({"a": 1}, "a list in the order of the run"),
    ],
)
def test_mistakes_are_told(phases: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        MixtureSpace.phases(phases)


def test_a_fixed_part_that_breaks_a_cap_is_named() -> None:
    with pytest.raises(ConstraintError) as caught:
        late_space(max_epochs={"math": 2})
    assert str(caught.value) == (
        "the fixed phases give 'math' 0.09 of the run, which breaks the cap 0.08 on the share of "
        "'math' (2 epochs x 4e8 tokens / 1e10); give it less in them, or raise max_epochs"
    )
