"""The study that a command works on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_demix.cli._console import quiet_optuna

if TYPE_CHECKING:
    import argparse

    from optuna.study import Study

    from optuna_demix.config import StudyConfig


def open_study(arguments: argparse.Namespace, config: StudyConfig) -> Study:
    """Load the study of ``--storage`` and ``--study-name``, whose trials are only read or added.

    Raises:
        StudyError: If there is none, or it has other objectives than its file.
    """
    from optuna_demix.storage.connection import connect, storage_url
    from optuna_demix.study.attach import check_directions, load_study

    quiet_optuna(quiet=True)
    study = load_study(
        connect(storage_url(arguments.storage)), study_name=arguments.study_name, sampler=None
    )
    check_directions(study, config)
    return study
