"""``optuna-demix worker``: what its processes on one host are told."""

from __future__ import annotations

import argparse
from typing import Any

import pytest

from optuna_demix.cli._main import build_parser
from optuna_demix.quickstart import STUDY_FILE
from optuna_demix.workers import fleet
from tests.cli.parsers import subparser

QUICKSTART = STUDY_FILE
OWN = {"help", "storage", "n_workers", "timeout", "no_progress"}
"""What the first process keeps: the storage goes into the environment, the bar is its own, and a
process that replaces another one gets the time that is left."""


def _options() -> list[argparse.Action]:
    worker = subparser(build_parser(), "worker")
    return [a for a in worker._actions if a.dest not in OWN and a.option_strings]


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The arguments with which processes are started."""
    calls: list[list[str]] = []

    def run_workers(arguments: list[str], **options: Any) -> int:
        calls.append(list(arguments))
        return 0

    monkeypatch.setattr(fleet, "run_workers", run_workers)
    monkeypatch.setenv("OPTUNA_STORAGE", "sqlite:///mix.db")
    return calls


def _run(parser: argparse.ArgumentParser, *words: str) -> None:
    arguments = parser.parse_args(
        ["worker", str(QUICKSTART), "--study-name", "mix", "--n-workers", "2", *words]
    )
    assert arguments.run(arguments) == 0


def _given(option: argparse.Action) -> list[str]:
    return [option.option_strings[0]] if option.nargs == 0 else [option.option_strings[0], "7"]


@pytest.mark.parametrize("option", _options(), ids=lambda option: str(option.dest))
def test_every_option_is_passed_on(option: argparse.Action, passed: list[list[str]]) -> None:
    parser = build_parser()
    _run(parser, *_given(option))
    child = parser.parse_args(["worker", *passed[0]])
    asked = parser.parse_args(["worker", str(QUICKSTART), "--study-name", "mix", *_given(option)])
    assert getattr(child, option.dest) == getattr(asked, option.dest) != option.default
    assert vars(child) == vars(asked)


def test_a_new_option_is_passed_on_without_being_named_again(passed: list[list[str]]) -> None:
    parser = build_parser()
    worker = subparser(parser, "worker")
    worker.add_argument("--patience", type=float)
    worker.add_argument("--careful", action="store_true")
    worker.add_argument("--skip", nargs="+", default=[])
    _run(parser, "--patience", "-1.5", "--careful", "--skip", "a", "b")
    child = parser.parse_args(["worker", *passed[0]])
    assert (child.patience, child.careful, child.skip) == (-1.5, True, ["a", "b"])


def test_what_is_the_first_process_own_is_not_passed_on(passed: list[list[str]]) -> None:
    _run(build_parser(), "--storage", "sqlite:///a.db", "--no-progress")
    shown = " ".join(passed[0])
    assert not any(option in shown for option in ("--storage", "--n-workers", "--no-progress"))


@pytest.mark.parametrize("value", ["inf", "nan", "0", "-1", "soon"])
@pytest.mark.parametrize("option", ["--timeout", "--stop-grace"])
def test_times_are_finite(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["worker", str(QUICKSTART), "--study-name", "x", f"{option}={value}"]
    with pytest.raises(SystemExit) as stopped:
        build_parser().parse_args(words)
    assert stopped.value.code == 2
    assert option in capsys.readouterr().err
