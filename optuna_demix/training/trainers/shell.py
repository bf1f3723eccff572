"""Shell lines of a plan."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from optuna_demix.training.trainers.runs import Surroundings

_CHECKOUT = "\0"  # stands before what the shell fills in


def words(*parts: str | int | float | Path) -> str:
    """A command line of words, quoted; what :func:`variable` made is left to the shell."""
    return " ".join(_word(str(part)) for part in parts)


def variable(name: str, path: str = "") -> str:
    """A path inside the folder that an environment variable names."""
    return f'{_CHECKOUT}"${name}"{path}'


def torchrun(around: Surroundings) -> Sequence[str | int]:
    """The beginning of a launch on the GPUs of one host."""
    return ["torchrun", "--nproc-per-node", around.gpus]


def _word(part: str) -> str:
    if part.startswith(_CHECKOUT):
        return part[1:]
    return shlex.quote(part)
