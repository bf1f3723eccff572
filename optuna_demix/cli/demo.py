"""``optuna-demix demo``: a whole small search, from text to a recommendation."""

from __future__ import annotations

import argparse
import importlib.util
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from optuna_demix.cli._console import quiet_optuna, say
from optuna_demix.cli._options import add_command, add_device, positive_number
from optuna_demix.errors import DemixError

if TYPE_CHECKING:
    from optuna_demix.cli._options import Commands

_NEEDED = ("torch", "transformers", "tokenizers", "accelerate", "lm_eval", "pandas")
_STUDY_NAME = "quickstart"


def add_parser(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        "demo",
        _demo,
        "run a whole small search: text, models, trials, recommendation",
        "optuna-demix demo --out demix-demo\n\n"
        "It takes minutes on a CPU, downloads nothing, and goes on where it stopped.",
        takes_study=False,
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("demix-demo"),
        metavar="DIR",
        help="folder of all that it writes (default: demix-demo)",
    )
    parser.add_argument(
        "--n-trials",
        type=positive_number,
        default=32,
        metavar="N",
        help="trials of the study, finished ones included (default: 32)",
    )
    parser.add_argument(
        "--n-workers",
        type=positive_number,
        default=2,
        metavar="W",
        help="processes that evaluate them (default: 2)",
    )
    add_device(parser)
    parser.add_argument("--no-progress", action="store_true", help="print lines, not bars")


def _demo(arguments: argparse.Namespace) -> int:
    for package in _NEEDED:
        if importlib.util.find_spec(package) is None:
            raise DemixError(f"the demo needs {package}; pip install 'optuna-demix[models]'")
    from optuna_demix.quickstart import prepare

    folder: Path = arguments.out
    try:
        study = str(prepare(folder, report=_show))
    except OSError as error:
        raise DemixError(
            f"--out {folder}: cannot be written ({error.strerror}); check the path and the space"
        ) from None
    storage = f"sqlite:///{folder / 'study.db'}"
    where = ["--storage", storage, "--study-name", _STUDY_NAME]
    quiet = ["--no-progress"] if arguments.no_progress else []
    device = ["--device", arguments.device]
    trials = ["--n-trials", str(arguments.n_trials), "--n-workers", str(arguments.n_workers)]
    summary = ["--verify", "--json", str(folder / "summary.json")]
    kind = ["--device", arguments.device.partition(":")[0]]
    if status := _command("train", study, *kind, *quiet):
        return _stopped(status)
    _create_study(study, storage)
    if status := _command("worker", study, *where, *trials, *device, *quiet):
        return _stopped(status)
    if status := _command("recommend", study, *where, *summary, *device, *quiet):
        return _stopped(status)
    _show(f"\n{folder}/study.yaml is the study, {folder}/summary.json the answer. Look at it:")
    _show(f"  optuna-dashboard {shlex.quote(storage)}")
    return 0


def _command(*words: str) -> int:
    """Print a command of ours and run it, in this process, which has imported torch by then."""
    from optuna_demix.cli._main import main

    _show(f"\n$ optuna-demix {shlex.join(words)}")
    return main(words)


def _create_study(file: str, storage: str) -> None:
    """Print Optuna's command and do what it does."""
    import optuna

    from optuna_demix.config import load_study_config, objective_names

    n_objectives = len(objective_names(load_study_config(file)))
    words = ["--storage", storage, "--study-name", _STUDY_NAME, "--skip-if-exists", "--directions"]
    _show(f"\n$ optuna create-study {shlex.join(words + ['maximize'] * n_objectives)}")
    quiet_optuna(quiet=True)
    optuna.create_study(
        storage=storage,
        study_name=_STUDY_NAME,
        directions=["maximize"] * n_objectives,
        load_if_exists=True,
    )


def _stopped(status: int) -> int:
    say("the same command goes on where this one stopped")
    return status


def _show(line: str) -> None:
    print(line, file=sys.stdout, flush=True)
