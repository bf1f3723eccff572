"""Running one program that a model wrote as Hugging Face's ``code_eval`` runs it.

``code_eval`` (https://huggingface.co/spaces/evaluate-metric/code_eval) executes a program in an
empty namespace, deaf and mute, with a timer, and without functions that could do harm by mistake.
Whether an honest program passes depends on all of that, so that it is the same here.
"""

from __future__ import annotations

import builtins
import faulthandler
import io
import os
import shutil
import signal
import subprocess
import sys
from types import FrameType
from typing import Any

from optuna_demix.scoring.sandbox.cell import Voice

PASSED = "passed"
TIMED_OUT = "timed out"
GRACE_S = 1.0
"""Seconds that a program has to end after its timer has rung."""

_SAID = 200  # characters of an error that are kept

_ABSENT: dict[Any, tuple[str, ...]] = {
    builtins: ("exit", "quit", "help"),
    os: (
        *("kill", "killpg", "system", "putenv", "fork", "forkpty", "setuid"),
        *("remove", "unlink", "removedirs", "rmdir", "rename", "renames", "replace", "truncate"),
        *("chmod", "fchmod", "lchmod", "chown", "fchown", "lchown", "lchflags"),
        *("chroot", "chdir", "fchdir", "getcwd"),
    ),
    shutil: ("rmtree", "move", "chown"),
    subprocess: ("Popen",),
}
_ABSENT_MODULES = ("ipdb", "joblib", "resource", "psutil", "tkinter")


class _Ended(Exception):
    """The timer has rung."""


class _Mute(io.StringIO):
    """A stream that keeps nothing and gives nothing."""

    def write(self, text: str, /) -> int:
        return len(text)

    def read(self, size: int | None = -1, /) -> str:
        raise OSError

    def readline(self, size: int = -1, /) -> str:  # type: ignore[override]
        raise OSError

    def readlines(self, hint: int = -1, /) -> list[str]:  # type: ignore[override]
        raise OSError

    def readable(self) -> bool:
        return False


def run(program: str, seconds: float, voice: Voice) -> None:
    """Run a program and say what came of it.

    Args:
        program: Its text.
        seconds: After which it fails.
        voice: Says "passed" or why not.
    """
    sys.stdin = sys.stdout = sys.stderr = _Mute()
    _make_harmless()
    said = PASSED
    try:
        signal.signal(signal.SIGALRM, _ring)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        exec(program, {})  # noqa: S102
    except _Ended:
        said = TIMED_OUT
    except BaseException as error:
        said = f"failed: {str(error)[:_SAID]}"
    try:
        signal.setitimer(signal.ITIMER_REAL, 0)
    except _Ended:
        said = TIMED_OUT
    voice.say(said.encode("ascii", "replace").decode())


def _ring(signum: int, frame: FrameType | None) -> None:
    raise _Ended


def _make_harmless() -> None:
    faulthandler.disable()
    for module, names in _ABSENT.items():
        for name in names:
            setattr(module, name, None)
    for name in _ABSENT_MODULES:
        sys.modules[name] = None  # type: ignore[assignment]
