"""A process that claims the report of a study again and again, and looks for company."""

from __future__ import annotations

import os
import sys

import optuna

from optuna_demix.report._lease import Turn


def main(url: str, marker: str, rounds: int) -> None:
    """Enter as often as it goes; print how often that was, or ``company`` where it failed."""
    study = optuna.load_study(study_name="demix", storage=url)
    turn = Turn(study, interval_s=0.0, growth=0.0)
    entered = 0
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(rounds):
        with turn.taken() as won:
            if not won:
                continue
            try:
                os.close(os.open(marker, os.O_CREAT | os.O_EXCL))  # fails if it is there
            except FileExistsError:
                print("company", flush=True)
                return
            turn.note(entered, 0.0)
            os.unlink(marker)
            entered += 1
    print(entered, flush=True)


def hold(url: str) -> None:
    """Claim the report and never let go."""
    study = optuna.load_study(study_name="demix", storage=url)
    with Turn(study).taken() as won:
        print(won, flush=True)
        sys.stdin.readline()


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if sys.argv[1] == "hold":
        hold(sys.argv[2])
    else:
        main(sys.argv[2], sys.argv[3], int(sys.argv[4]))
