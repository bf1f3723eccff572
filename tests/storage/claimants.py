"""A process that claims something in a study again and again, and looks for company."""

from __future__ import annotations

import os
import sys

import optuna

from optuna_demix.storage.claim import Claim

PREFIX = "test:claim:"


def claim_of(study: optuna.Study) -> Claim:
    return Claim(study, PREFIX, patience_s=900.0)


def race(url: str, marker: str, rounds: int) -> None:
    """Print how often the claim was held, or ``company`` where another process held it too."""
    claim = claim_of(optuna.load_study(study_name="mix", storage=url))
    held = 0
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(rounds):
        with claim.held() as is_held:
            if not is_held:
                continue
            try:
                os.close(os.open(marker, os.O_CREAT | os.O_EXCL))  # fails if it is there
            except FileExistsError:
                print("company", flush=True)
                return
            os.unlink(marker)
            held += 1
    print(held, flush=True)


def hold(url: str) -> None:
    """Hold the claim until this process is killed."""
    with claim_of(optuna.load_study(study_name="mix", storage=url)).held() as is_held:
        print(is_held, flush=True)
        sys.stdin.readline()


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if sys.argv[1] == "hold":
        hold(sys.argv[2])
    else:
        race(sys.argv[2], sys.argv[3], int(sys.argv[4]))
