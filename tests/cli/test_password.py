"""A storage's password: not in the list of processes, not in what is printed."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from optuna_demix.cli import main
from optuna_demix.cli._main import build_parser
from optuna_demix.cli._password import hide_password
from optuna_demix.storage.connection import STORAGE_ENV
from tests.cli.parsers import all_parsers

URL = "postgresql://me:geheim@host/mix"


class _Started(Exception):
    """Raised in place of starting the process again."""


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], dict[str, str]]]:
    """The command lines and environments with which the process was started again."""
    calls: list[tuple[list[str], dict[str, str]]] = []

    def execve(path: str, command: list[str], environment: dict[str, str]) -> Any:
        calls.append((command, environment))
        raise _Started

    monkeypatch.setattr(os, "execve", execve)
    return calls


@pytest.mark.parametrize(
    "given",
    [
        ["--storage", URL],
        [f"--storage={URL}"],
        ["--storage", "sqlite:///other.db", "--storage", URL],
        [f"--storage={URL}", f"--storage={URL}"],
    ],
    ids=["two words", "one word", "given twice, the last counts", "given twice, one word each"],
)
def test_a_password_leaves_the_command_line(
    given: list[str],
    started: list[tuple[list[str], dict[str, str]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = ["worker", "study.yaml", *given, "--study-name", "mix"]
    monkeypatch.setattr(sys, "argv", ["optuna-demix", *arguments])
    with pytest.raises(_Started):
        hide_password()
    ((command, environment),) = started
    assert command[3:] == ["worker", "study.yaml", "--study-name", "mix"]
    assert environment[STORAGE_ENV] == URL


@pytest.mark.parametrize(
    "given",
    [["--storage", "postgresql://me@host/mix"], ["--storage=sqlite:///a.db"], [], ["--storage"]],
)
def test_nothing_is_started_again_without_a_password(
    given: list[str],
    started: list[tuple[list[str], dict[str, str]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["optuna-demix", "worker", "study.yaml", *given])
    hide_password()
    assert not started


def test_no_parser_takes_the_beginning_of_an_option() -> None:
    """``--stor URL`` was read as ``--storage URL``, but its password was not hidden."""
    parsers = all_parsers(build_parser())
    assert len(parsers) > 10
    assert not [parser.prog for parser in parsers if parser.allow_abbrev]


def test_a_shortened_option_is_refused_before_anything_is_done() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "optuna_demix", "serve", "--stor", URL],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and "unrecognized arguments: --stor" in done.stderr
    assert "geheim" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "words",
    [
        [URL],
        ["--storage", URL, "worker"],
        ["worker", "a.yaml", URL],
        ["serve", f"--stor={URL}"],
        ["serve", "--port", URL],
    ],
)
def test_a_misplaced_url_is_refused_without_its_password(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*words])
    assert stopped.value.code == 2
    assert "geheim" not in capsys.readouterr().err
