"""A process that claims one study after the other for a fingerprint of its own."""

from __future__ import annotations

import sys

import optuna

from optuna_demix.errors import StudyError
from optuna_demix.study.fingerprint import claim_study


def main(url: str, mark: str, names: list[str]) -> None:
    """Print for each study whether the claim was let through."""
    storage = optuna.storages.RDBStorage(url)
    studies = [optuna.load_study(study_name=name, storage=storage) for name in names]
    print("ready", flush=True)
    sys.stdin.readline()
    for study in studies:
        try:
            claim_study(study, {"mark": mark}, metric_names=["score"], layout=[{mark: 1.0}])
        except StudyError:
            print("refused", end=" ")
        else:
            print("through", end=" ")


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
