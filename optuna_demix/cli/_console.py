"""What commands print and write."""

from __future__ import annotations

import sys
from pathlib import Path

from optuna_demix._files import write_whole
from optuna_demix._progress import Report
from optuna_demix.errors import DemixError


def write_output(path: Path, text: str, *, option: str = "--json") -> None:
    """Write the file that an option asks for.

    Args:
        path: The file; its folder is made.
        text: What it holds.
        option: The option, for messages.

    Raises:
        DemixError: If it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)
    except OSError as error:
        raise DemixError(
            f"{option} {path}: cannot be written ({error.strerror}); check the path and the space"
        ) from None


def quiet_optuna(*, quiet: bool) -> None:
    """Keep Optuna's line for each trial out of the way of a progress bar."""
    import warnings

    import optuna

    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    if quiet:
        optuna.logging.set_verbosity(optuna.logging.WARNING)


def console(*, shown: bool) -> Report:
    """What a command says while it runs: bars on a terminal, lines elsewhere, or nothing."""
    return Report(say, bars=True) if shown else Report()


def say(line: str) -> None:
    """Print a line beside the command's output, on stderr."""
    print(f"optuna-demix: {line}", file=sys.stderr)
