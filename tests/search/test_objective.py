from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import optuna
import pytest

from optuna_demix import DemixSampler, MixtureObjective, MixtureSpace
from optuna_demix.attributes import (
    FAILURE_ATTR,
    OBJECTIVES_ATTR,
    SAMPLING_SEED_ATTR,
    SCORE_PREFIX,
)
from optuna_demix.errors import ConfigError
from optuna_demix.scoring import BlockScores
from optuna_demix.search.rows.targets import Targets

SPACE = MixtureSpace(["web", "code", "math"])
CAPABILITIES = {"code": ["humaneval"], "reasoning": ["gsm8k", "arc"]}


class Arithmetic:
    """A model that is its merge weights, and a scorer that reads them."""

    names = ("math", "web", "code")  # not the order of the space

    def __init__(self, *, broken: str | None = None) -> None:
        self.broken = broken

    def merge(self, w: np.ndarray) -> None:
        self.merged = dict(zip(self.names, w, strict=True))

    def score(self) -> dict[str, float]:
        scores = {
            "humaneval": float(self.merged["code"]),
            "gsm8k": float(self.merged["math"]),
            "arc": float(self.merged["web"]),
        }
        return {n: math.nan if n == self.broken else s for n, s in scores.items()}


class Sampling(Arithmetic):
    """The same with a seed, which it keeps."""

    def __init__(self, *, samples: bool = True) -> None:
        super().__init__()
        self.samples, self.seeds = samples, list[int | None]()

    def seed_of(self, number: int) -> int | None:
        return 100 + number if self.samples else None

    def score(self, *, seed: int | None = None) -> dict[str, float]:
        self.seeds.append(seed)
        return super().score()

    def race(self, *, seed: int | None = None) -> Iterator[BlockScores]:
        scores = self.score(seed=seed)
        yield BlockScores(scores, scores, dict.fromkeys(scores, 1), last=True)


def make(model: Arithmetic, **kwargs: object) -> MixtureObjective:
    return MixtureObjective(SPACE, model, model, CAPABILITIES, **kwargs)  # type: ignore[arg-type]


def test_weights_reach_the_components_they_are_named_after() -> None:
    scores = make(Arithmetic()).score({"web": 0.5, "code": 0.3, "math": 0.2})
    assert scores.benchmarks == {"humaneval": 0.3, "gsm8k": 0.2, "arc": 0.5}
    assert scores.capabilities == pytest.approx({"code": 0.3, "reasoning": 0.35})


@pytest.mark.parametrize("weights", [None, {"code": 0.75, "reasoning": 0.25}])
def test_any_study_can_use_it_and_learns_each_benchmark(weights: dict[str, float] | None) -> None:
    directions = ["maximize"] * (2 if weights is None else 1)
    study = optuna.create_study(directions=directions, sampler=DemixSampler(SPACE, seed=0))
    study.optimize(make(Arithmetic(), weights=weights), n_trials=10)
    targets = Targets.of(study)
    assert targets.benchmarks == ("arc", "gsm8k", "humaneval")
    for trial in study.trials:
        benchmarks = targets.read(trial)
        assert benchmarks is not None
        # The objectives follow from the benchmarks by the weights written to the study.
        assert benchmarks @ targets.mixing == pytest.approx(trial.values)
        assert trial.user_attrs[SCORE_PREFIX + "gsm8k"] == trial.params["math"]


@pytest.mark.parametrize("racing", [None, "mean"])
def test_a_trial_has_a_seed_for_its_texts(racing: str | None) -> None:
    model = Sampling()
    objective = make(model, racing=racing, weights={"code": 1.0, "reasoning": 1.0})
    study = optuna.create_study(direction="maximize")
    study.optimize(objective, n_trials=2)
    study.enqueue_trial(study.trials[0].params, user_attrs={SAMPLING_SEED_ATTR: 7})
    study.optimize(objective, n_trials=1)
    assert [t.user_attrs[SAMPLING_SEED_ATTR] for t in study.trials] == [100, 101, 7]
    assert model.seeds == [100, 101, 7]
    objective.score({"web": 0.5, "code": 0.3, "math": 0.2})
    assert model.seeds[-1] is None


def test_a_scorer_that_samples_nothing_needs_no_seed() -> None:
    model = Sampling(samples=False)
    study = optuna.create_study(directions=["maximize"] * 2)
    study.optimize(make(model), n_trials=1)
    assert SAMPLING_SEED_ATTR not in study.trials[0].user_attrs and model.seeds == [None]


def test_a_nan_benchmark_fails_the_trial_and_names_itself() -> None:
    study = optuna.create_study(directions=["maximize"] * 2)
    study.optimize(make(Arithmetic(broken="gsm8k")), n_trials=2)
    for trial in study.trials:
        assert trial.state.name == "FAIL"
        assert trial.user_attrs[FAILURE_ATTR] == "no finite score for gsm8k"
        assert SCORE_PREFIX + "arc" in trial.user_attrs


def test_other_components_than_the_space_are_refused() -> None:
    model = Arithmetic()
    model.names = ("math", "web", "prose")
    with pytest.raises(ConfigError, match="math, web, prose.*web, code, math"):
        make(model)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"code": 1.0, "reasoning": -0.5}, "'reasoning' is -0.5"),
        ({"code": math.nan, "reasoning": 1.0}, "'code' is nan"),
        ({"code": 1.0, "reasoning": math.inf}, "'reasoning' is inf"),
        ({"code": "much", "reasoning": 1.0}, "'code' is 'much'"),
        ({"code": 1.0, "reasoning": 1.0, "maths": 1.0}, "no capability 'maths'"),
        ({"code": 1.0}, "no weight of capability 'reasoning'"),
        ({"code": 0.0, "reasoning": 0.0}, "all 0"),
    ],
)
def test_unusable_weights_are_refused_when_they_are_given(
    weights: dict[str, float], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        make(Arithmetic(), weights=weights)


@pytest.mark.parametrize(
    ("capabilities", "said"), [({}, "no capability"), ({"code": []}, "'code' has no benchmark")]
)
def test_capabilities_without_benchmarks_are_refused(
    capabilities: dict[str, list[str]], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        MixtureObjective(SPACE, Arithmetic(), Arithmetic(), capabilities)


def test_a_capability_of_weight_0_is_scored_but_does_not_count() -> None:
    objective = make(Arithmetic(), weights={"code": 2.0, "reasoning": 0.0})
    scores = objective.score([0.5, 0.3, 0.2])
    assert set(scores.benchmarks) == {"humaneval", "gsm8k", "arc"}
    assert objective.values(scores) == [pytest.approx(0.6)]


@pytest.mark.parametrize("weights", [None, {"code": 1.0, "reasoning": 3.0}])
def test_a_benchmark_of_two_capabilities_counts_in_both(weights: dict[str, float] | None) -> None:
    capabilities = {"code": ["humaneval", "gsm8k", "gsm8k"], "reasoning": ["gsm8k", "arc"]}
    model = Arithmetic()
    objective = MixtureObjective(SPACE, model, model, capabilities, weights=weights)
    scores = objective.score([0.5, 0.3, 0.2])
    learned = [
        sum(share * scores.benchmarks[name] for name, share in layout.items())
        for layout in objective.layout()
    ]
    assert learned == pytest.approx(objective.values(scores))


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ([0.5, 0.5], "2 merge weights.*web, code, math"),
        ([0.5, 0.3, 0.1, 0.1], "4 merge weights.*web, code, math"),
        ({"web": 0.5, "code": 0.5}, "'math'"),
        ({"web": 0.5, "code": 0.3, "math": 0.1, "prose": 0.1}, "no component 'prose'"),
    ],
)
def test_merge_weights_of_other_components_are_refused(weights: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make(Arithmetic()).score(weights)  # type: ignore[arg-type]


@pytest.mark.parametrize("layout", ["text", [1], [{"a": "x"}, {}], [{}, {}], [{"a": 1.0}]])
def test_a_foreign_objectives_attribute_is_not_trusted(layout: object) -> None:
    study = optuna.create_study(directions=["maximize"] * 2)
    study.set_user_attr(OBJECTIVES_ATTR, layout)
    assert Targets.of(study).benchmarks == ()


class Mixed:
    """A probability mixture whose scores are ten times the weights, of two benchmarks."""

    benchmarks = ("gsm8k", "arc")

    def scores(self, weights: np.ndarray) -> np.ndarray:
        return 10.0 * weights[:, [2, 0]]  # math, web


def test_a_benchmark_is_scored_by_one_proxy_by_the_other_or_by_both() -> None:
    objective = make(Arithmetic(), probabilities=Mixed(), shares={"gsm8k": 1.0, "arc": 0.5})
    scores = objective.score({"web": 0.5, "code": 0.3, "math": 0.2})
    assert scores.benchmarks == pytest.approx({"humaneval": 0.3, "gsm8k": 2.0, "arc": 2.75})
    assert scores.capabilities == pytest.approx({"code": 0.3, "reasoning": 2.375})
    assert scores.merged == pytest.approx({"humaneval": 0.3, "gsm8k": 0.2, "arc": 0.5})
    assert scores.probabilities == pytest.approx({"gsm8k": 2.0, "arc": 5.0})


def test_a_trial_keeps_what_either_proxy_said() -> None:
    study = optuna.create_study(directions=["maximize"] * 2, sampler=DemixSampler(SPACE, seed=0))
    objective = make(Arithmetic(), probabilities=Mixed(), shares={"arc": 0.5})
    study.optimize(objective, n_trials=1)
    (trial,) = study.trials
    web = trial.params["web"]
    assert trial.user_attrs["merged:arc"] == pytest.approx(web)
    assert trial.user_attrs["probability:arc"] == pytest.approx(10 * web)
    assert trial.user_attrs["score:arc"] == pytest.approx(5.5 * web)
    assert "merged:humaneval" not in trial.user_attrs


def test_nothing_is_merged_where_no_benchmark_needs_it() -> None:
    objective = MixtureObjective(
        SPACE,
        None,
        None,
        {"reasoning": ["gsm8k", "arc"]},
        probabilities=Mixed(),
        shares={"gsm8k": 1.0, "arc": 1.0},
    )
    scores = objective.score(np.array([0.5, 0.3, 0.2]))
    assert scores.benchmarks == pytest.approx({"gsm8k": 2.0, "arc": 5.0})
    assert scores.merged == {}


def test_merges_without_a_model_and_races_of_two_proxies_are_refused() -> None:
    with pytest.raises(ConfigError, match="need a model"):
        MixtureObjective(SPACE, None, None, CAPABILITIES, probabilities=Mixed())
    with pytest.raises(ConfigError, match="racing"):
        MixtureObjective(
            SPACE,
            Arithmetic(),
            Arithmetic(),
            {"reasoning": ["gsm8k", "arc"]},
            probabilities=Mixed(),
            shares={"arc": 0.5},
            racing="block",
        )
