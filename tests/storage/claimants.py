"""A process that claims something in a study again and again, and looks for company."""

from __future__ import annotations

import os
from typing import Any

import optuna

from optuna_demix.storage.claim import Claim

PREFIX = "test:claim:"


def claim_of(study: optuna.Study) -> Claim:
    return Claim(study, PREFIX, patience_s=900.0)


def race(url: str, marker: str, rounds: int, start: Any, said: Any) -> None:
    """Say how often the claim was held, or ``None`` where another process held it too."""
    claim = claim_of(optuna.load_study(study_name="mix", storage=url))
    held = 0
    start.wait()
    for _ in range(rounds):
        with claim.held() as is_held:
            if not is_held:
                continue
            try:
                os.close(os.open(marker, os.O_CREAT | os.O_EXCL))  # fails if it is there
            except FileExistsError:
                said.put(None)
                return
            os.unlink(marker)
            held += 1
    said.put(held)


def hold(url: str, parent: Any) -> None:
    """Hold the claim until this process is killed."""
    with claim_of(optuna.load_study(study_name="mix", storage=url)).held() as is_held:
        parent.send(is_held)
        parent.recv()
