from __future__ import annotations

import subprocess
import sys

import pytest

from optuna_demix.cli import main
from optuna_demix.quickstart import STUDY_FILE

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


@pytest.mark.parametrize(
    "command",
    ["demo", "check", "train", "worker", "recommend", "report", "export", "fidelity", "serve"],
)
def test_every_command_has_help_with_an_example(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    assert f"optuna-demix {command} " in capsys.readouterr().out.split("example:")[1]


def test_check_shows_the_study_and_how_to_make_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(QUICKSTART), "--no-tasks"]) == 0
    shown = capsys.readouterr().out
    assert "--directions maximize maximize maximize" in shown
    assert "general: prior 0.5000, weight 0.0000 to 1.0000" in shown


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
