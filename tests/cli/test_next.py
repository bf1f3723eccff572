"""The command to type next: with what the user has given, and without passwords."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from optuna_demix.cli._main import build_parser
from optuna_demix.cli._next import next_command, say_next
from optuna_demix.cli._password import TYPED_ENV
from optuna_demix.cli.worker import _say_next
from optuna_demix.study import create_command
from tests.tiny_study import write_study

ALL = "storage study_name device"


def _next(*words: str, name: str = "export", like: str = ALL) -> str:
    return next_command(build_parser().parse_args(words), name, "--format", "json", like=like)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPTUNA_STORAGE", TYPED_ENV):
        monkeypatch.delenv(name, raising=False)


def test_it_holds_what_the_user_has_given() -> None:
    given = ["my study.yaml", "--storage", "sqlite:///mix.db", "--study-name", "a b"]
    command = _next("recommend", *given, "--device", "cuda:1")
    assert shlex.split(command) == [
        *("optuna-demix", "export", *given, "--device", "cuda:1", "--format", "json")
    ]


def test_it_names_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "postgresql://me:geheim@host/mix"
    words = ["recommend", "study.yaml", "--study-name", "mix"]
    typed = _next(*words, "--storage", url)
    # As when the process was started again with the URL in its environment.
    monkeypatch.setenv("OPTUNA_STORAGE", url)
    monkeypatch.setenv(TYPED_ENV, "1")
    assert _next(*words) == typed and "me:***@host" in typed and "geheim" not in typed


def test_a_storage_of_the_environment_is_left_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTUNA_STORAGE", "postgresql://me:geheim@host/mix")
    assert "--storage" not in _next("recommend", "study.yaml", "--study-name", "mix")


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["recommend", "study.yaml"], True),
        (["recommend", "study.yaml", "--json", "out.json"], True),
        (["recommend", "study.yaml", "--json", "-"], False),
        (["recommend", "study.yaml", "--no-progress"], False),
    ],
)
def test_it_is_printed_where_somebody_reads_it(
    words: list[str], shown: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    say_next(build_parser().parse_args(words), "first", "second")
    out, err = capsys.readouterr()
    assert out == "" and err == ("next: first\n      second\n" if shown else "")


def test_a_stopped_worker_is_started_again_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["worker", "study.yaml", "--storage", "sqlite:///a.db", "--study-name", "mix"]
    parser = build_parser()
    arguments = parser.parse_args([*words, "--n-trials", "64", "--n-workers", "2"])
    _say_next(arguments, goes_on=True)
    command = shlex.split(capsys.readouterr().err.removeprefix("next: "))
    again = parser.parse_args(command[1:])
    assert vars(again) | {"parser": None} == vars(arguments) | {"parser": None}
    _say_next(arguments, goes_on=False)
    assert "optuna-demix recommend study.yaml" in capsys.readouterr().err


def test_the_study_is_made_with_a_command_that_a_shell_reads(tmp_path: Path) -> None:
    from optuna_demix.config import load_study_config

    config = load_study_config(write_study(tmp_path))
    command = create_command(config, storage=None, study_name="my mix")
    assert shlex.split(command) == [
        *("optuna", "create-study", "--study-name", "my mix"),
        *("--directions", "maximize", "maximize"),
    ]
