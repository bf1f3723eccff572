"""A search that starts from a cheap prediction of its scores."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.samplers import PartialFixedSampler

from optuna_demix import DemixSampler, DemixTerminator, MixtureSpace, recommend
from optuna_demix.attributes import OBJECTIVES_ATTR, SCORE_PREFIX
from optuna_demix.errors import ConfigError
from optuna_demix.search import SearchOptions
from optuna_demix.search.proposals.acquisition import nearest_distance

SPACE = MixtureSpace(["general", "code", "math", "docs"], upper={"code": 0.4})
TARGET = np.array([0.1, 0.35, 0.45, 0.1])
BENCHMARKS = ("arc", "hella", "wino")
CENTERS = np.array([[0.5, 0.3, 0.1, 0.1], [0.1, 0.35, 0.45, 0.1], [0.2, 0.1, 0.2, 0.5]])


def exact(W: np.ndarray) -> np.ndarray:
    return -((W - TARGET) ** 2).sum(axis=1, keepdims=True)


def lower(W: np.ndarray) -> np.ndarray:
    return -exact(W)


def of_benchmarks(W: np.ndarray) -> np.ndarray:
    return -((W[:, None, :] - CENTERS) ** 2).sum(axis=2)


class Named:
    def __init__(self, *names: str) -> None:
        self.benchmarks = names

    def __call__(self, W: np.ndarray) -> np.ndarray:
        return of_benchmarks(W)[:, [BENCHMARKS.index(name) for name in self.benchmarks]]


def weights_of(study: optuna.Study) -> np.ndarray:
    return np.array([[t.params[name] for name in SPACE.param_names] for t in study.trials])


def objective(trial: optuna.Trial) -> float:
    return float(exact(np.array([list(SPACE.suggest(trial).values())]))[0, 0])


def searched(n_trials: int, objective: Any = objective, **kwargs: Any) -> optuna.Study:
    sampler = DemixSampler(SPACE, seed=0, **kwargs)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(objective, n_trials=n_trials)
    return study


def with_benchmarks(n_trials: int, **kwargs: Any) -> optuna.Study:
    """A study of two objectives that tells its benchmarks."""
    sampler = DemixSampler(SPACE, seed=0, **kwargs)
    study = optuna.create_study(directions=["maximize"] * 2, sampler=sampler)
    study.set_user_attr(OBJECTIVES_ATTR, [{"arc": 0.5, "hella": 0.5}, {"wino": 1.0}])

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        scores = of_benchmarks(np.array([list(SPACE.suggest(trial).values())]))[0]
        for name, score in zip(BENCHMARKS, scores.tolist(), strict=True):
            trial.set_user_attr(SCORE_PREFIX + name, score)
        return float(scores[:2].mean()), float(scores[2])

    study.optimize(objective, n_trials=n_trials)
    return study


def test_it_starts_at_the_optimum_of_the_prior_mean_and_around_it() -> None:
    study = searched(8, prior_mean=exact)
    W = weights_of(study)
    assert np.all(SPACE.contains(W))
    assert W[0] == pytest.approx(SPACE.prior)
    assert W[1] == pytest.approx(TARGET, abs=5e-3)
    random = exact(SPACE.sample(1000, np.random.default_rng(0)))
    good = exact(W)[:, 0] > np.quantile(random, 0.9)
    assert good[1::2].all() and not good[0::2].all()
    assert nearest_distance(W[3::2], W[1:2]).min() > 0.03  # spread


def test_a_wrong_prior_mean_leaves_half_of_the_start_as_it_was() -> None:
    W, plain = (weights_of(searched(8, **kwargs)) for kwargs in ({"prior_mean": lower}, {}))
    first = SPACE.sample(1000, np.random.default_rng(0))
    assert exact(W)[1::2].max() < np.quantile(exact(first), 0.3)  # the worst, as it was told
    spread = [nearest_distance(X[[2, 4, 6]], X[[0]]).mean() for X in (W, plain)]
    assert spread[0] > 0.5 * spread[1]
    W = weights_of(searched(20, prior_mean=lower))
    assert exact(W).max() > -5e-3


def test_an_exact_one_finds_the_optimum_with_ten_trials() -> None:
    for n, bound in ((2, 0.02), (10, 0.01)):
        found = recommend(searched(n, prior_mean=exact))
        w = np.array(list(found.merge_weights.values()))
        assert 0.5 * np.abs(w - TARGET).sum() < bound + 0.02
    assert next(iter(found.accuracy.values())) > 0.99


def test_it_has_the_direction_of_the_objective() -> None:
    drawn = []
    for direction, sign, guess in (("maximize", 1, exact), ("minimize", -1, lower)):
        sampler = DemixSampler(SPACE, seed=1, prior_mean=guess)
        study = optuna.create_study(direction=direction, sampler=sampler)
        study.optimize(lambda trial, s=sign: s * objective(trial), n_trials=11)
        drawn.append(weights_of(study))
    np.testing.assert_allclose(*drawn)


def test_trials_that_are_asked_at_once_differ() -> None:
    study = optuna.create_study(
        direction="maximize", sampler=DemixSampler(SPACE, seed=0, prior_mean=exact)
    )
    W = np.array([list(SPACE.suggest(study.ask()).values()) for _ in range(12)])
    away = [nearest_distance(W[[i]], np.delete(W, i, axis=0))[0] for i in range(12)]
    assert min(away) >= 1e-3


def test_benchmarks_that_are_not_named_have_none() -> None:
    from optuna_demix.search._analysis import analyze

    analysis = analyze(with_benchmarks(10, prior_mean=Named("wino", "arc")))
    kinds = dict(zip(analysis.fit.targets.benchmarks, analysis.fit.surrogate.kinds_, strict=True))
    assert {name for name, kind in kinds.items() if "prior" in kind} == {"arc", "wino"}
    new = SPACE.sample(200, np.random.default_rng(1))
    found = analysis.fit.surrogate.predict(new)
    np.testing.assert_allclose(found[:, [0, 2]], of_benchmarks(new)[:, [0, 2]], atol=5e-3)


def test_columns_for_objectives_serve_the_benchmarks_of_each() -> None:
    def of_objectives(W: np.ndarray) -> np.ndarray:
        scores = of_benchmarks(W)
        return np.stack([scores[:, :2].mean(axis=1), scores[:, 2]], axis=1)

    from optuna_demix.search._analysis import analyze

    analysis = analyze(with_benchmarks(8, prior_mean=of_objectives))
    assert analysis.fit.surrogate.shares_[BENCHMARKS.index("wino")]["prior"] > 0.9
    assert analysis.fit.surrogate.predict(CENTERS).shape == (3, 3)


def test_it_may_name_objectives_and_wait_for_the_benchmarks() -> None:
    guess = Named("hella")
    study = optuna.create_study(
        direction="maximize", sampler=DemixSampler(SPACE, seed=0, prior_mean=guess)
    )
    study.set_metric_names(["hella"])
    first, second = study.ask(), study.ask()
    SPACE.suggest(second)
    study.tell(first, objective(first))
    SPACE.suggest(study.ask())
    SPACE.suggest(study.ask())
    W = weights_of(study)
    # Before the first score nobody knows what benchmarks there are.
    assert W[1] != pytest.approx(CENTERS[1], abs=0.02)
    assert W[3] == pytest.approx(CENTERS[1], abs=0.02)


def test_recommendation_and_terminator_use_it_too() -> None:
    study = searched(10)
    options = SearchOptions(seed=0, prior_mean=exact)
    for kinds, chosen in ((True, options), (False, SearchOptions(seed=0))):
        from optuna_demix.search._analysis import analyze

        fit = analyze(study, SPACE, options=chosen).fit
        assert ("prior" in fit.surrogate.kinds_[0]) is kinds
    calls = []

    def counted(W: np.ndarray) -> np.ndarray:
        calls.append(len(W))
        return exact(W)

    chosen = SearchOptions(prior_mean=counted)
    DemixTerminator(SPACE, min_n_trials=9, options=chosen).should_terminate(study)
    assert calls


def test_it_is_called_for_many_mixtures_at_a_time() -> None:
    calls = []

    def counted(W: np.ndarray) -> np.ndarray:
        assert W.shape[1] == len(SPACE) and np.allclose(W.sum(axis=1), 1.0)
        calls.append(len(W))
        return exact(W)

    study = searched(10, prior_mean=counted)
    calls.clear()
    study.optimize(objective, n_trials=1)
    assert len(calls) <= 4 and sum(calls) < 8000


def test_fixed_weights_are_kept() -> None:
    sampler = DemixSampler(SPACE, seed=0, prior_mean=exact)
    fixed = PartialFixedSampler({SPACE.param_names[2]: 0.2}, sampler)
    study = optuna.create_study(direction="maximize", sampler=fixed)
    study.optimize(objective, n_trials=10)
    W = weights_of(study)
    np.testing.assert_allclose(W[:, 2], 0.2)
    best = exact(SPACE.pin({"math": 0.2}).sample(4000, np.random.default_rng(0))).max()
    assert exact(W[[1]])[0, 0] > best - 1e-3


def test_a_pickled_sampler_keeps_it() -> None:
    sampler = pickle.loads(pickle.dumps(DemixSampler(SPACE, seed=0, prior_mean=exact)))
    assert sampler.options.prior_mean is exact


def test_warm_rows_count_with_it() -> None:
    earlier = searched(12)
    study = searched(5, prior_mean=exact, warm_start=[earlier], n_startup_trials=4)
    assert exact(weights_of(study)).max() > -1e-4


@pytest.mark.parametrize("shape", [(1,), (1, 2), ()])
def test_another_shape_is_refused_with_both_shapes(shape: tuple[int, ...]) -> None:
    def wrong(W: np.ndarray) -> np.ndarray:
        return np.zeros((len(W), *shape[1:]) if shape else ())

    expected = r"prior_mean must return an array of shape \(\d+, 1\), .* got shape"
    with pytest.raises(ConfigError, match=expected):
        searched(2, prior_mean=wrong)


def test_what_it_raises_comes_through_as_it_is() -> None:
    def broken(W: np.ndarray) -> np.ndarray:
        raise ZeroDivisionError("of the user's own")

    with pytest.raises(ZeroDivisionError, match="of the user's own"):
        searched(2, prior_mean=broken)


def test_benchmarks_that_the_study_does_not_score_are_refused() -> None:
    guess = Named("arc")
    guess.benchmarks = ("acr",)
    with pytest.raises(ConfigError, match=r"names the benchmarks acr, .* \(arc, hella, wino\)"):
        with_benchmarks(2, prior_mean=guess)


class Unnamed:
    benchmarks: Any = "arc"

    def __call__(self, W: np.ndarray) -> np.ndarray:
        return W


class Twice(Unnamed):
    benchmarks = ("arc", "arc")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prior_mean": 0.5}, "prior_mean must be a function of merge weights"),
        ({"prior_mean": Unnamed()}, "prior_mean.benchmarks must be a tuple of names"),
        ({"prior_mean": Twice()}, "prior_mean.benchmarks names one twice: arc, arc"),
        ({"prior_mean": exact, "schedule": "demix"}, "prior_mean does not go with schedule"),
    ],
)
def test_mistakes_are_told_when_they_are_made(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        SearchOptions(**change)
    assert "\n" not in str(raised.value)


def test_two_mixtures_are_refused() -> None:
    spaces = [MixtureSpace(["a", "b"], name=name) for name in ("first", "second")]
    with pytest.raises(ConfigError, match="prior_mean predicts the scores of one mixture, but 2"):
        DemixSampler(spaces, prior_mean=exact)
    study = optuna.create_study(sampler=DemixSampler(spaces, seed=0))
    with pytest.raises(ConfigError, match="prior_mean predicts the scores of one mixture, but 2"):
        recommend(study, spaces, options=SearchOptions(prior_mean=exact))
