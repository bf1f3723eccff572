from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time

import pytest

from optuna_demix.cli import main
from optuna_demix.cli._main import build_parser
from optuna_demix.quickstart import STUDY_FILE
from tests.cli.parsers import all_parsers

QUICKSTART = STUDY_FILE
HEAVY = ("torch", "transformers", "lm_eval", "lightgbm", "scipy", "optuna", "plotly")


@pytest.mark.parametrize(
    "code", ["import optuna_demix", "from optuna_demix.cli._main import build_parser"]
)
def test_importing_is_light(code: str) -> None:
    program = f"import sys; {code}; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("module", ["optuna_demix", "optuna_demix.cli"])
def test_modules_run_as_the_command(module: str) -> None:
    launch = [sys.executable, "-m", module, "train", "nowhere.yaml"]
    done = subprocess.run(launch, capture_output=True, text=True)
    assert done.returncode == 2
    assert "nowhere.yaml: cannot be read" in done.stderr


def test_the_sampler_needs_neither_torch_nor_lm_eval() -> None:
    program = (
        "import sys, optuna, optuna_demix as d; s = d.MixtureSpace(['a', 'b']);"
        "study = optuna.create_study(sampler=d.DemixSampler(s, seed=0, n_startup_trials=2));"
        "study.optimize(lambda t: s.suggest(t)['a'], n_trials=5); d.recommend(study, s);"
        "print([m for m in ('torch', 'transformers', 'lm_eval') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_function_keeps_its_name_beside_its_module() -> None:
    program = (
        "import optuna_demix.search.recommendation; from optuna_demix import recommend; "
        "print(callable(recommend))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "True", done.stderr


@pytest.mark.parametrize("parser", all_parsers(build_parser()), ids=lambda parser: parser.prog)
def test_all_help_has_an_example_that_names_a_file_of_the_users_own(
    parser: argparse.ArgumentParser,
) -> None:
    shown = parser.format_help().partition("example")[2]
    assert f"  {parser.prog} " in shown
    assert "studies/" not in shown and "runs/" not in shown


def test_check_shows_the_study(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(QUICKSTART), "--no-tasks"]) == 0
    assert "general: prior 0.5000, weight 0.0000 to 1.0000" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt(), 130), (KeyboardInterrupt(15), 143)]
)
def test_an_interruption_is_one_line(
    error: BaseException,
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(path: str) -> None:
        raise error

    monkeypatch.setattr("optuna_demix.config.load_study_config", interrupted)
    for command in (["fidelity"], ["arena", "build"], ["arena", "verify"], ["check"]):
        assert main([*command, "study.yaml"]) == status
        assert capsys.readouterr().err == "optuna-demix: interrupted\n"


def test_sigterm_interrupts_what_has_no_handler_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(
        "optuna_demix.config.load_study_config",
        lambda path: (os.kill(os.getpid(), signal.SIGTERM), time.sleep(60)),
    )
    assert main(["arena", "build", "study.yaml"]) == 143
    assert capsys.readouterr().err == "optuna-demix: interrupted\n"
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_storage_is_needed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPTUNA_STORAGE", raising=False)
    assert main(["worker", str(QUICKSTART), "--study-name", "x"]) == 2
    assert "OPTUNA_STORAGE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value"),
    [("--n-trials", "0"), ("--n-trials", "-1"), ("--n-trials", "many"), ("--seed", "-1")],
)
def test_bad_numbers_are_refused(
    option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["worker", str(QUICKSTART), "--study-name", "x", option, value])
    assert stopped.value.code == 2
    assert option in capsys.readouterr().err
