"""Attach to an Optuna study, and check that it fits the ``study.yaml``."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from optuna_demix._wording import counted
from optuna_demix.config.study import objective_names
from optuna_demix.errors import StudyError
from optuna_demix.storage.secrets import mask_url

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage
    from optuna.study import Study

    from optuna_demix.config import StudyConfig


def create_command(config: StudyConfig, *, storage: str | None, study_name: str) -> str:
    """The ``optuna create-study`` command that fits a study.

    Args:
        config: The study.
        storage: Storage URL, printed without its password; ``None`` for that of the environment.
        study_name: Name of the study.
    """
    where = [] if storage is None else ["--storage", mask_url(storage)]
    directions = ["maximize"] * len(objective_names(config))
    return shlex.join(
        ["optuna", "create-study", *where, "--study-name", study_name, "--directions", *directions]
    )


def load_study(
    storage: BaseStorage,
    *,
    study_name: str,
    sampler: BaseSampler | None,
    pruner: BasePruner | None = None,
) -> Study:
    """Load a study from a storage.

    Raises:
        StudyError: If there is no such study; the message lists those there are.
    """
    import optuna

    try:
        return optuna.load_study(
            study_name=study_name, storage=storage, sampler=sampler, pruner=pruner
        )
    except KeyError:
        names = sorted(study.study_name for study in storage.get_all_studies())
        known = f"it holds {', '.join(map(repr, names[:10]))}" if names else "it holds none"
        raise StudyError(
            f"no study {study_name!r} in the storage ({known}); "
            "make it with 'optuna create-study' or correct --study-name"
        ) from None


def check_directions(study: Study, config: StudyConfig) -> None:
    """Check that a study has the objectives that the ``study.yaml`` asks for.

    Raises:
        StudyError: If number or sense of the directions differ.
    """
    from optuna.study import StudyDirection

    wanted = objective_names(config)
    given = study.directions
    if len(given) == len(wanted) and all(d == StudyDirection.MAXIMIZE for d in given):
        return
    kind = ", ".join(d.name.lower() for d in given)
    raise StudyError(
        f"study {study.study_name!r} has {counted(len(given), 'direction')} ({kind}), but "
        f"{config.source} has {counted(len(wanted), 'objective')} to maximize "
        f"({', '.join(wanted)}); create the study with --directions "
        f"{' '.join(['maximize'] * len(wanted))}, or change 'objective' in the file"
    )
