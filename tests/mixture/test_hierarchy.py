"""Topics and their sources."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from optuna_demix.errors import ConfigError, ConstraintError
from optuna_demix.mixture import LinearConstraint, MixtureSpace, Topic

TOPICS: dict[str, Any] = {"web": ["crawl", "forums"], "code": ["python", "rust", "go"]}
PRIOR = {"crawl": 5, "forums": 1, "python": 2, "rust": 1, "go": 1}


def drawn(space: MixtureSpace, n: int = 500) -> np.ndarray:
    return space.sample(n, np.random.default_rng(0))


def test_components_are_the_sources_in_the_order_of_their_topics() -> None:
    space = MixtureSpace.nested(TOPICS, prior=PRIOR)
    assert space.components == ("crawl", "forums", "python", "rust", "go")
    assert space.topic_weights(space.prior) == pytest.approx({"web": 0.6, "code": 0.4})
    assert space.param_names == space.components


def test_bounds_hold_at_both_levels() -> None:
    space = MixtureSpace.nested(
        {
            "web": Topic(["crawl", "forums"], lower=0.2, upper=0.5, source_upper={"forums": 0.5}),
            "code": {"sources": TOPICS["code"], "source_lower": 0.1},
        },
        prior=PRIOR,
    )
    W = drawn(space)
    web, code = W[:, :2].sum(axis=1), W[:, 2:].sum(axis=1)
    assert web.min() >= 0.2 - 1e-9 and web.max() <= 0.5 + 1e-9
    assert (W[:, 1] <= 0.5 * web + 1e-9).all() and W[:, 1].max() > 0.15
    assert (W[:, 2:] >= 0.1 * code[:, None] - 1e-9).all()


def test_topics_alone_are_searched_with_their_sources_in_the_priors_proportions() -> None:
    space = MixtureSpace.nested(TOPICS, prior=PRIOR, search="topics")
    W = drawn(space)
    assert W[:, 0] == pytest.approx(5 * W[:, 1], abs=1e-9)
    assert W[:, 2] == pytest.approx(2 * W[:, 4], abs=1e-9)
    assert W[:, :2].sum(axis=1).std() > 0.05


def test_sources_alone_are_searched_with_their_topics_at_the_priors_weights() -> None:
    space = MixtureSpace.nested(TOPICS, prior=PRIOR, search="sources")
    W = drawn(space)
    assert W[:, :2].sum(axis=1) == pytest.approx(np.full(len(W), 0.6), abs=1e-9)
    assert W[:, 0].std() > 0.03 and W[:, 3].std() > 0.03


def test_the_draws_of_a_block_are_those_of_a_mixture_of_its_own() -> None:
    """Topics that are held split the draws into one Dirichlet each, not a squeezed joint one."""
    space = MixtureSpace.nested(TOPICS, prior=PRIOR, search="sources")
    alone = MixtureSpace(TOPICS["code"], prior=[2, 1, 1])
    together = drawn(space, 4000)[:, 2:] / 0.4
    apart = drawn(alone, 4000)
    assert together.mean(axis=0) == pytest.approx(apart.mean(axis=0), abs=0.02)
    assert together.std(axis=0) == pytest.approx(apart.std(axis=0), abs=0.02)


def test_a_topics_prior_replaces_the_sum_of_its_sources() -> None:
    space = MixtureSpace.nested(
        {
            "web": {"sources": TOPICS["web"], "prior": 1},
            "code": {"sources": TOPICS["code"], "prior": 3},
        },
        prior=PRIOR,
    )
    assert space.topic_weights(space.prior) == pytest.approx({"web": 0.25, "code": 0.75})
    assert space.prior[0] == pytest.approx(5 * space.prior[1])


@pytest.mark.parametrize(
    ("topics", "options", "said"),
    [
        ({"a": ["x"], "b": ["x", "y"]}, {}, "source 'x' is in two topics, 'a' and 'b'"),
        ({"a": []}, {}, "sources of topic 'a': at least one name is needed"),
        ({"a": {"source": ["x"]}}, {}, "topic 'a' has unknown field 'source'"),
        ({"a": {"sources": ["x"], "prior": 1}, "b": ["y"]}, {}, "topic 'b' has none; give all"),
        ({"a": {"sources": ["x"], "source_upper": {"z": 1}}}, {}, "names 'z'"),
        (TOPICS, {"search": "both"}, "search is"),
        ([], {}, "a hierarchy maps each topic"),
    ],
)
def test_mistakes_are_told(topics: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        MixtureSpace.nested(topics, **options)


def test_limits_that_exclude_each_other_are_named_as_they_were_given() -> None:
    with pytest.raises(ConstraintError) as caught:
        MixtureSpace.nested(
            {"web": Topic(["crawl", "forums"], source_upper=0.4), "code": ["python"]},
            lower={"crawl": 0.3},
        )
    assert "crawl is at most 0.4 of web" in str(caught.value)
    assert "forums is at most 0.4 of web" in str(caught.value)


class TestLinearConstraint:
    def test_its_title_is_the_sum_written_out(self) -> None:
        assert (
            LinearConstraint({"a": 1, "b": -0.5, "c": 2}, upper=0).title == "'a' - 0.5 'b' + 2 'c'"
        )
        assert LinearConstraint({"a": -1}, upper=0).title == "-'a'"

    def test_what_breaks_it_is_told_with_its_value(self) -> None:
        space = MixtureSpace(["a", "b"], constraints=[{"coefficients": {"a": 2}, "lower": 1}])
        assert space.broken([0.25, 0.75]) == [
            "lower bound 1 of constraint 2 'a' (of weights) (0.5 given)"
        ]

    def test_sums_of_data_shares_follow_the_composition(self) -> None:
        space = MixtureSpace(
            ["a", "b"],
            composition={"a": {"x": 1}, "b": {"x": 0.5, "y": 0.5}},
            constraints=[LinearConstraint({"y": 1, "x": -0.25}, upper=0, of="shares")],
        )
        shares = space.data_shares(space.sample(200, np.random.default_rng(0)))
        assert (shares[:, 1] <= 0.25 * shares[:, 0] + 1e-9).all()
        assert space.max_weights()[1] == pytest.approx(0.4)

    @pytest.mark.parametrize(
        ("fields", "said"),
        [
            ({"coefficients": {"a": 1}}, "has no bound; give 'lower' or 'upper'"),
            ({"coefficients": {"z": 1}, "upper": 1}, "names 'z'"),
            ({"coefficients": {"a": 0}, "upper": 1}, "all 0"),
            ({"coefficients": {"a": "x"}, "upper": 1}, "coefficient of 'a' must be a number"),
            ({"coefficients": {}, "upper": 1}, "needs 'coefficients'"),
            ({"coefficients": {"a": 1}, "upper": 0, "lower": 1}, "exceeds its upper bound"),
            ({"coefficients": {"a": 1}, "upper": 0, "of": "both"}, "'of' is"),
            ({"coefficient": {"a": 1}}, "unknown field 'coefficient'"),
            ([1], "a constraint is a LinearConstraint or a mapping"),
        ],
    )
    def test_mistakes_are_told(self, fields: Any, said: str) -> None:
        with pytest.raises((ConfigError, ConstraintError), match=said):
            MixtureSpace(["a", "b"], constraints=[fields])

    def test_spaces_that_differ_in_it_alone_are_not_equal(self) -> None:
        plain = MixtureSpace(["a", "b"])
        half = MixtureSpace(["a", "b"], constraints=[{"coefficients": {"a": 1}, "upper": 0.5}])
        same = MixtureSpace(
            ["a", "b"], constraints=[LinearConstraint({"a": 1, "b": 0}, upper=0.5, name="half")]
        )
        assert plain != half and half == same
