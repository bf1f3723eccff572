"""No proposal within ``min_distance`` of another trial, whatever its state and however late."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from optuna_demix import DemixSampler, MixtureSpace
from optuna_demix.attributes import PROPOSAL_ATTR
from optuna_demix.storage.connection import connect
from optuna_demix.storage.server import serve

SPACE = MixtureSpace(["web", "code", "math"])
APART = 0.05  # the distance that these tests ask for

Params = dict[str, float]


def value(params: Params) -> float:
    return -((params["web"] - 0.5) ** 2) - (params["code"] - 0.3) ** 2


def distance(a: Params, b: Params) -> float:
    return 0.5 * sum(abs(a[name] - b[name]) for name in SPACE.components)


def sampler(**kwargs: Any) -> DemixSampler:
    return DemixSampler(SPACE, seed=0, min_distance=APART, **kwargs)


@functools.cache
def _random() -> list[optuna.trial.FrozenTrial]:
    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0)
    )
    study.optimize(lambda trial: value(SPACE.suggest(trial)), n_trials=30)
    return study.trials


def fill(study: optuna.Study, n_trials: int) -> None:
    """Let a study have trials; another sampler's, so that reads of its own are the first."""
    study.add_trials(_random()[:n_trials])


def trial_at(params: Params, state: TrialState) -> optuna.trial.FrozenTrial:
    values = {"value": value(params)} if state == TrialState.COMPLETE else {}
    return create_trial(state=state, params=params, distributions=SPACE.distributions(), **values)


def enqueue(study: optuna.Study, params: Params) -> None:
    study.enqueue_trial(params)


def by_state(state: TrialState) -> Callable[[optuna.Study, Params], None]:
    def add(study: optuna.Study, params: Params) -> None:
        study.add_trial(trial_at(params, state))

    return add


def judged_and_pruned(study: optuna.Study, params: Params) -> None:
    trial = trial_at(params, TrialState.PRUNED)
    trial.intermediate_values = {0: 1.0}
    study.add_trial(trial)


NEIGHBORS: dict[str, Callable[[optuna.Study, Params], None]] = {
    "complete": by_state(TrialState.COMPLETE),
    "failed": by_state(TrialState.FAIL),
    "pruned": by_state(TrialState.PRUNED),
    "pruned by its reports": judged_and_pruned,
    "running": by_state(TrialState.RUNNING),
    "enqueued": enqueue,
}


@pytest.mark.parametrize("startup", [100, 0], ids=["startup", "model"])
@pytest.mark.parametrize("neighbor", NEIGHBORS.values(), ids=NEIGHBORS)
def test_a_proposal_keeps_away_from_trials_of_every_state(
    neighbor: Callable[[optuna.Study, Params], None], startup: int
) -> None:
    def ask(after: Callable[[optuna.Study], None]) -> Params:
        study = optuna.create_study(
            direction="maximize", sampler=sampler(n_startup_trials=startup)
        )
        fill(study, 12)
        number = study.ask().number  # the trial that proposes, whoever comes in between
        after(study)
        trial = study.get_trials(deepcopy=False)[number]
        proposed = study.sampler.sample_relative(study, trial, dict(SPACE.distributions()))
        return {name: proposed[name] for name in SPACE.components}

    wanted = ask(lambda study: None)
    assert distance(ask(lambda study: neighbor(study, wanted)), wanted) >= APART


@pytest.fixture
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    url = f"sqlite:///{tmp_path / 'mix.db'}"
    if request.param == "memory":
        yield optuna.storages.InMemoryStorage()
        return
    optuna.storages.RDBStorage(url).remove_session()
    if request.param == "grpc":
        pytest.importorskip("grpc", reason="grpcio is not installed")
        with serve(url, host="127.0.0.1", port=0, n_threads=2) as port:
            yield connect(f"grpc://127.0.0.1:{port}")
    else:
        yield connect(url)


def _between() -> Iterator[Any]:
    """Every state in memory; on other storages, a few that are read in different ways."""
    for storage in ("memory", "sqlite", "grpc", "shared snapshot"):
        for name, neighbor in NEIGHBORS.items():
            # SQLite alone is as the shared snapshot, which is quick.
            few = storage != "sqlite" and name in ("complete", "running", "enqueued")
            marks = () if storage == "memory" or few else pytest.mark.slow
            yield pytest.param(storage, neighbor, id=f"{storage}-{name}", marks=marks)


@pytest.mark.parametrize(("storage", "neighbor"), list(_between()), indirect=["storage"])
def test_a_neighbor_that_comes_between_two_reads_is_seen(
    storage: Any,
    neighbor: Callable[[optuna.Study, Params], None],
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    study = optuna.create_study(
        storage=storage, study_name="mix", direction="maximize", sampler=sampler()
    )
    fill(study, 10)
    first: list[Params] = []
    write = storage.set_trial_system_attr

    def interrupted(trial_id: int, key: str, written: Any) -> None:
        if key == PROPOSAL_ATTR and not first:
            first.append(dict(written))
            neighbor(optuna.load_study(storage=storage, study_name="mix"), first[0])
        write(trial_id, key, written)

    monkeypatch.setattr(storage, "set_trial_system_attr", interrupted)
    shared = "shared snapshot" in request.node.name
    with storage.shared_snapshot() if shared else nullcontext():
        trial = study.ask()
        params = {name: trial.suggest_float(name, 0.0, 1.0) for name in SPACE.components}
    assert distance(params, first[0]) >= APART
    # What other workers read of it is where it went.
    assert trial.storage.get_trial(trial._trial_id).system_attrs[PROPOSAL_ATTR] == params


def test_a_repeat_that_comes_between_two_reads_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With ``reevaluate``: the best mixture is evaluated three times, by however many workers."""
    study = optuna.create_study(direction="maximize", sampler=sampler(reevaluate=True))
    fill(study, 30)
    lucky = {"web": 0.1, "code": 0.1, "math": 0.8}
    for luck in (1.0, 0.0):
        study.add_trial(
            create_trial(
                params=lucky, distributions=SPACE.distributions(), value=value(lucky) + luck
            )
        )
    storage = study._storage
    proposals: list[Params] = []
    write = storage.set_trial_system_attr

    def interrupted(trial_id: int, key: str, written: Any) -> None:
        if key == PROPOSAL_ATTR:
            proposals.append(dict(written))
            if len(proposals) == 1:
                study.add_trial(trial_at(lucky, TrialState.RUNNING))
        write(trial_id, key, written)

    monkeypatch.setattr(storage, "set_trial_system_attr", interrupted)
    trial = study.ask(SPACE.distributions())
    assert proposals[0] == pytest.approx(lucky)
    assert distance(trial.params, lucky) >= APART
