"""A process that claims one study after the other for a fingerprint of its own."""

from __future__ import annotations

from typing import Any

import optuna

from optuna_demix.errors import StudyError
from optuna_demix.study.fingerprint import claim_study


def claim_all(url: str, mark: str, names: list[str], start: Any, said: Any) -> None:
    """Say of which studies the claim was let through."""
    storage = optuna.storages.RDBStorage(url)
    studies = [optuna.load_study(study_name=name, storage=storage) for name in names]
    through = []
    start.wait()
    for study in studies:
        try:
            claim_study(study, {"mark": mark}, metric_names=["score"], layout=[{mark: 1.0}])
        except StudyError:
            continue
        through.append(study.study_name)
    said.put((mark, through))
