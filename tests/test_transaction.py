"""A mixture is written to a database in one transaction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.storages import get_storage
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from optuna_demix._transaction import Parameter, one_transaction, set_trial_params
from optuna_demix.mixture import MixtureSpace
from optuna_demix.storage.retrying import RetryingStorage

NAMES = [f"c{i}" for i in range(20)]
UNIT = FloatDistribution(0.0, 1.0)


def _study(path: Path) -> optuna.Study:
    return optuna.create_study(storage=f"sqlite:///{path}", direction="maximize")


def _stored(study: optuna.Study, number: int) -> dict[str, Any]:
    """Parameters of a trial as another process reads them."""
    backend: Any = study._storage
    other = optuna.load_study(study_name=study.study_name, storage=backend._backend.url)
    return other.trials[number].params


def test_a_database_commits_once_for_all_weights(tmp_path: Path) -> None:
    study = _study(tmp_path / "study.db")
    space = MixtureSpace(NAMES)
    backend: Any = study._storage
    written = []

    def record(*_: Any) -> None:
        written.append(True)

    counts = []
    event.listen(backend._backend.engine, "commit", record)
    for _ in range(2):  # the second time, distributions are known
        trial = study.ask()
        assert trial.relative_params == {}  # what a sampler writes itself does not count
        before = len(written)
        with one_transaction(trial):
            for name in NAMES:
                trial.suggest_float(name, 0.0, 1.0)
        counts.append(len(written) - before)
        space.suggest(trial)  # what is suggested is not written again
        assert _stored(study, trial.number) == trial.params
        assert set(trial.params) == set(NAMES)
    assert max(counts) < 4


@pytest.mark.parametrize("storage", ["memory", "journal"])
def test_other_storages_get_one_parameter_after_another(tmp_path: Path, storage: str) -> None:
    from optuna.storages.journal import JournalFileBackend

    journal = optuna.storages.JournalStorage(JournalFileBackend(str(tmp_path / "log")))
    study = optuna.create_study(storage=None if storage == "memory" else journal)
    trial = study.ask()
    MixtureSpace(NAMES).suggest(trial)
    assert study.trials[0].params == trial.params and len(trial.params) == len(NAMES)


def test_parameters_that_are_there_already_stay(tmp_path: Path) -> None:
    study = _study(tmp_path / "study.db")
    trial = study.ask()
    storage = study._storage
    storage.set_trial_param(trial._trial_id, "a", 0.25, UNIT)
    both = [Parameter("a", 0.75, UNIT), Parameter("b", 0.5, UNIT)]
    set_trial_params(storage, trial._trial_id, both)
    assert _stored(study, 0) == {"a": 0.25, "b": 0.5}


def test_another_range_is_refused_as_by_optuna(tmp_path: Path) -> None:
    study = _study(tmp_path / "study.db")
    study.ask().suggest_categorical("a", ["x", "y"])
    trial = study.ask()
    with pytest.raises(ValueError, match="distribution kind"):
        with one_transaction(trial):
            trial.suggest_float("b", 0.0, 1.0)
            trial.suggest_float("a", 0.0, 1.0)
    assert _stored(study, 1) == {}


def test_a_block_that_fails_writes_nothing(tmp_path: Path) -> None:
    study = _study(tmp_path / "study.db")
    trial = study.ask()
    with pytest.raises(KeyError):
        with one_transaction(trial):
            trial.suggest_float("a", 0.0, 1.0)
            raise KeyError("b")
    assert _stored(study, 0) == {}
    assert trial.storage is study._storage


def test_trials_without_a_storage_are_left_alone() -> None:
    weights = dict.fromkeys(NAMES, 1.0 / len(NAMES))
    found = MixtureSpace(NAMES).suggest(optuna.trial.FixedTrial(weights))
    assert found == pytest.approx(weights)


def test_a_transaction_is_repeated_when_the_connection_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner: Any = get_storage(f"sqlite:///{tmp_path / 'study.db'}")
    study = optuna.create_study(storage=RetryingStorage(inner))
    trial = study.ask()
    backend, lost = inner._backend, []
    write = backend._set_trial_param_without_commit

    def once_lost(*args: Any) -> None:
        if not lost:
            lost.append(args)
            raise OperationalError("INSERT", {}, Exception("server closed the connection"))
        write(*args)

    monkeypatch.setattr(backend, "_set_trial_param_without_commit", once_lost)
    monkeypatch.setattr("optuna_demix.storage.retrying._FIRST_PAUSE_S", 0.001)
    MixtureSpace(NAMES).suggest(trial)
    assert lost and study.trials[0].params == trial.params


@pytest.mark.parametrize(
    "name",
    ["_create_scoped_session", "RDBStorage._set_trial_param_without_commit"],
    ids=["session", "write"],
)
def test_an_optuna_without_these_functions_gets_one_parameter_after_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    storage: Any = get_storage(f"sqlite:///{tmp_path / 'study.db'}")
    study = optuna.create_study(storage=storage)
    trial = study.ask()
    given: list[Any] = []
    monkeypatch.setattr(storage, "set_trial_param", lambda *rest: given.append(rest[1:]))
    monkeypatch.delattr(f"optuna.storages._rdb.storage.{name}")
    set_trial_params(storage, trial._trial_id, [Parameter("a", 0.25, UNIT)])
    assert given == [("a", 0.25, UNIT)]
