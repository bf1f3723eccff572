"""Parameters of a trial in one transaction: a database commits once, not for each of them.

Optuna has no such call. What it has inside is used for its own databases alone, and where a
release has it; any other storage gets one parameter after another.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.storages import BaseStorage
    from optuna.trial import BaseTrial


class Parameter(NamedTuple):
    """What ``BaseStorage.set_trial_param`` takes beside the trial."""

    name: str
    internal: float
    distribution: BaseDistribution


@contextmanager
def one_transaction(trial: BaseTrial) -> Iterator[None]:
    """Within the block, parameters that a trial suggests are kept, and written at its end.

    Nothing is written if the block fails. Trials that have no storage are left alone.
    """
    from optuna.trial import Trial

    if not isinstance(trial, Trial):
        yield
        return
    storage = trial.storage
    kept = _Keeper(storage)
    trial.storage = kept  # type: ignore[assignment]
    try:
        yield
    finally:
        trial.storage = storage
    if kept.parameters:
        set_trial_params(storage, trial._trial_id, kept.parameters)


def set_trial_params(storage: BaseStorage, trial_id: int, parameters: list[Parameter]) -> None:
    """Write parameters of a running trial, at once if the storage can."""
    from optuna.storages._cached_storage import _CachedStorage

    together = getattr(storage, "set_trial_params", None)
    if together is not None:
        together(trial_id, parameters)
    elif not isinstance(storage, _CachedStorage) or not _committed(storage, trial_id, parameters):
        for parameter in parameters:
            storage.set_trial_param(trial_id, *parameter)


class _Keeper:
    """A storage whose parameters are kept for later."""

    def __init__(self, storage: BaseStorage) -> None:
        self._storage = storage
        self.parameters: list[Parameter] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def set_trial_param(
        self, trial_id: int, name: str, internal: float, distribution: BaseDistribution
    ) -> None:
        self.parameters.append(Parameter(name, internal, distribution))


def _committed(storage: Any, trial_id: int, parameters: list[Parameter]) -> bool:
    """Whether a database took all parameters at once; it does not if it has one of them."""
    from optuna.storages._rdb import storage as rdb
    from sqlalchemy.exc import IntegrityError

    backend = storage._backend
    has_all = hasattr(rdb, "_create_scoped_session")
    if not has_all or not hasattr(backend, "_set_trial_param_without_commit"):
        return False
    with storage._lock:  # as in its set_trial_param
        study_id, _ = storage._trial_id_to_study_id_and_number[trial_id]
        cached = storage._studies[study_id].param_distribution
        try:
            with (
                rdb._create_scoped_session(backend.scoped_session) as session,
                session.no_autoflush,
            ):
                for name, internal, distribution in parameters:
                    backend._set_trial_param_without_commit(
                        session, trial_id, name, internal, distribution, cached.get(name)
                    )
        except IntegrityError:
            return False
        for name, _, distribution in parameters:
            cached.setdefault(name, distribution)
    return True
