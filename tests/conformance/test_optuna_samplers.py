"""Optuna's own conformance suites, for every kind of surrogate and both schedules."""

from __future__ import annotations

import functools
import multiprocessing
import pickle
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import optuna
import pytest
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    MultiObjectiveSamplerTestCase,
    RelativeSamplerTestCase,
)

from optuna_demix import DemixSampler, MixtureSpace

SPACE = MixtureSpace(["web", "code", "math"], upper={"code": 0.6})


def guess(W: Any) -> Any:
    return W[:, :1] - W[:, 1:2] ** 2


VARIANTS: dict[str, dict[str, Any]] = {
    "auto": {"surrogate": "auto"},
    "lightgbm": {"surrogate": "lightgbm"},
    "lightgbm-linear": {"surrogate": "lightgbm-linear"},
    "gp": {"surrogate": "gp"},
    "pareto": {"composite": "pareto"},
    "demix": {"schedule": "demix", "schedule_sizes": (3, 2), "pool_size": 500},
    "prior mean": {"prior_mean": guess},
}


def make(variant: str, **kwargs: Any) -> DemixSampler:
    return DemixSampler(SPACE, n_startup_trials=0, **VARIANTS[variant], **kwargs)


# Between sampler and study, one kind of surrogate is as the others: the slow tests have them all.
CONFORMING = [
    pytest.param(name, marks=pytest.mark.slow if "surrogate" in VARIANTS[name] else ())
    for name in VARIANTS
    if name not in ("auto", "prior mean")
]


@pytest.mark.parametrize("variant", ["auto", *CONFORMING])
class TestConformance(
    BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase
):
    @pytest.fixture
    def sampler(self, variant: str) -> Callable[[], BaseSampler]:
        return functools.partial(make, variant)


@pytest.mark.parametrize("variant", ["prior mean"])
class TestConformanceOfOneObjective(BasicSamplerTestCase, RelativeSamplerTestCase):
    @pytest.fixture
    def sampler(self, variant: str) -> Callable[[], BaseSampler]:
        return functools.partial(make, variant)


def total(*values: float) -> float:
    return sum(values)


def objective(trial: optuna.Trial, combine: Callable[..., float] = total) -> float:
    weights = SPACE.suggest(trial)
    others = [
        trial.suggest_float("a", 1, 9),
        trial.suggest_float("b", 1, 9, log=True),
        trial.suggest_float("c", 1, 9, step=1),
        trial.suggest_int("d", 1, 9, log=True),
        trial.suggest_categorical("e", range(1, 10)),
    ]
    return combine(weights["web"], *others)


def run(
    sampler: BaseSampler, combine: Callable[..., float] = total, *, n_trials: int = 8
) -> list[Any]:
    study = optuna.create_study(sampler=sampler)
    study.optimize(functools.partial(objective, combine=combine), n_trials=n_trials)
    return [trial.params for trial in study.trials]


def test_reseed_reaches_the_independent_sampler_once() -> None:
    sampler = DemixSampler(SPACE, seed=1)
    inner = sampler._independent_sampler
    with patch.object(inner, "reseed_rng", wraps=inner.reseed_rng) as forwarded:
        sampler.reseed_rng()
    assert forwarded.call_count == 1


@pytest.mark.parametrize("variant", ["auto", "demix"])
def test_reseed_changes_what_an_unseeded_sampler_draws(variant: str) -> None:
    sampler = make(variant)
    first = run(sampler)
    sampler.reseed_rng()
    assert run(sampler) != first


@pytest.mark.parametrize("n_jobs", [1, 3])
def test_a_seed_survives_parallel_trials(n_jobs: int) -> None:
    """``n_jobs`` makes Optuna reseed the sampler before every trial."""
    drawn = []
    for _ in range(2):
        study = optuna.create_study(sampler=DemixSampler(SPACE, seed=1, n_startup_trials=12))
        study.optimize(lambda trial: SPACE.suggest(trial)["web"], n_trials=1, n_jobs=n_jobs)
        study.optimize(lambda trial: SPACE.suggest(trial)["web"], n_trials=1)
        drawn.append([trial.params for trial in study.trials])
    assert drawn[0] == drawn[1]


def nothing(*_: float) -> float:
    return 0.0


@pytest.mark.parametrize(
    ("variant", "combine"), [*((name, total) for name in VARIANTS), ("auto", nothing)]
)
def test_equal_seeds_draw_the_same(variant: str, combine: Callable[..., float]) -> None:
    first = run(make(variant, seed=1), combine)
    assert run(make(variant, seed=1), combine) == first
    assert run(make(variant, seed=2), combine, n_trials=2) != first[:2]


WORD = "nondeterministic hash"


def _draw(queue: Any) -> None:
    queue.put((hash(WORD), run(make("auto", seed=1))))


def test_another_process_draws_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_draw, args=(queue,))
    process.start()
    its_hash, drawn = queue.get()
    process.join()
    assert its_hash != hash(WORD)  # the processes do order sets and dicts of strings differently
    assert drawn == run(make("auto", seed=1))


def test_a_pickled_sampler_goes_on_with_the_same_sequence() -> None:
    sampler = make("auto", seed=3)
    run(sampler)
    restored = pickle.loads(pickle.dumps(sampler))
    assert run(restored) == run(sampler)


def test_an_unseeded_sampler_is_random() -> None:
    assert run(DemixSampler(SPACE)) != run(DemixSampler(SPACE))
