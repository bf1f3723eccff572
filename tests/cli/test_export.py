"""``optuna-demix export`` as a user types it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import yaml

from optuna_demix import MixtureSpace
from optuna_demix.cli import main
from optuna_demix.export import FORMATS

COMPONENTS = ["web", "code", "math"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with a few trials; copy it, do not change it."""
    folder = tmp_path_factory.mktemp("made")
    study_yaml = {
        "components": COMPONENTS,
        "datasets": {"web": {"tokens": 10**9}, "code": {}, "math": {"tokens": 10**7}},
        "general": {"dataset": "web", "share": 0.5},
        "mixture": {"budget": 10**9},
        "capabilities": {"all": [{"task": "piqa", "metric": "acc"}]},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(study_yaml))
    url = f"sqlite:///{folder / 'mix.db'}"
    study = optuna.create_study(storage=url, study_name="mix", direction="maximize")
    space = MixtureSpace(COMPONENTS)
    for w in space.sample(6, np.random.default_rng(0)):
        study.add_trial(
            optuna.trial.create_trial(
                params=dict(zip(COMPONENTS, w.tolist(), strict=True)),
                distributions=space.distributions(),
                value=float(-((w - [0.2, 0.5, 0.3]) ** 2).sum()),
            )
        )
    return folder


@pytest.fixture
def arguments(made: Path, tmp_path: Path) -> list[str]:
    folder = Path(shutil.copytree(made, tmp_path / "study"))
    url = f"sqlite:///{folder / 'mix.db'}"
    return ["export", str(folder / "study.yaml"), "--storage", url, "--study-name", "mix"]


def test_it_prints_data_shares_and_says_epochs(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--format", "json", "--paths", "/d/{dataset}"]) == 0
    out, err = capsys.readouterr()
    datasets = json.loads(out)["datasets"]
    assert datasets["web"]["share"] > 0.5  # half of every component is web data
    assert sum(entry["share"] for entry in datasets.values()) == pytest.approx(1.0)
    assert datasets["math"]["path"] == "/d/math"
    epochs = 100 * datasets["math"]["share"]
    assert f"math: {datasets['math']['share']:.2%} of the data, {epochs:.2f} epochs" in err


def test_it_writes_a_file(arguments: list[str], tmp_path: Path) -> None:
    file = tmp_path / "out" / "mix.yaml"
    options = ["--format", "olmo-core", "--out", str(file), "--mixture", "prior"]
    assert main([*arguments, *options]) == 0
    text = file.read_text()
    assert text.startswith("# prior data shares of study 'mix', 6 trials\n")
    shares = {s["source_name"]: s["target_ratio"] for s in yaml.safe_load(text)["sources"]}
    assert shares["web"] == pytest.approx(1 / 3 + 0.5 * 2 / 3, abs=1e-5)


def test_a_share_too_small_to_write_is_left_out_and_named(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    study_yaml = Path(arguments[1])
    study = yaml.safe_load(study_yaml.read_text())
    study["mixture"]["prior"] = {"web": 1.0, "code": 1.0, "math": 1e-8}
    study_yaml.write_text(yaml.safe_dump(study))
    assert main([*arguments, "--format", "huggingface", "--mixture", "prior"]) == 0
    out, err = capsys.readouterr()
    remark = "left out, since the share rounds to 0: math (2.5e-09)"
    assert f"optuna-demix: {remark}" in err.splitlines()
    assert out.splitlines()[:2] == ["# prior data shares of study 'mix', 6 trials", f"# {remark}"]
    assert "'math'" not in out and "'code'" in out


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--format", "axolotl"], "megatron"),
        (["--format", "json", "--example-tokens", "web"], "NAME=N"),
        (["--format", "json", "--example-tokens", "web=5"], "code, math"),
        (["--format", "json", "--paths", "/data"], "{dataset}"),
        (["--format", "json", "--out", "/proc/no/mix.json"], "--out"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], options: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, *options]) == 2
    out, err = capsys.readouterr()
    last = err.splitlines()[-1]
    assert named in last and "error:" in last and "Traceback" not in err and out == ""


def test_the_help_names_every_format(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["export", "--help"])
    shown = capsys.readouterr().out
    assert all(kind in shown for kind in FORMATS)


def test_a_run_in_phases_is_written_as_a_whole_or_phase_by_phase(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    file = Path(arguments[1])
    late: dict[str, Any] = {"name": "late", "share": 0.2}
    early: dict[str, Any] = {
        "name": "early",
        "share": 0.8,
        "fixed": True,
        "prior": {"web": 3, "code": 1, "math": 0},
    }
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), "phases": [early, late]}))
    json_of = [*arguments, "--format", "json"]
    assert main([*arguments, "--format", "megatron"]) == 2
    refused = capsys.readouterr().err.splitlines()[-1]
    assert "'early', 'late'" in refused and "--phase" in refused and "nanotron" in refused
    assert main([*json_of, "--phase", "lat"]) == 2
    assert "did you mean 'late'" in capsys.readouterr().err
    assert main([*json_of, "--phase", "early"]) == 0
    out, err = capsys.readouterr()
    assert {name: one["share"] for name, one in json.loads(out)["datasets"].items()} == {
        "web": 0.75,
        "code": 0.25,
    }
    assert "web: 75.00% of the data, 0.60 epochs" in err  # 0.75 * 0.8 of 1e9 tokens
    assert main([*json_of, "--phase", "late"]) == 0
    late_web = json.loads(capsys.readouterr().out)["datasets"]["web"]
    assert late_web["share"] >= 0.5

    assert main(json_of) == 0  # the whole run
    out, err = capsys.readouterr()
    phases = json.loads(out)["phases"]
    assert [phase["name"] for phase in phases] == ["early", "late"]
    assert phases[1]["datasets"]["web"] == late_web
    assert f"whole run: web: {0.6 + late_web['epochs']:.2f} epochs" in err
    assert main([*arguments, "--format", "nanotron", "--step-tokens", "1e6"]) == 0
    written = capsys.readouterr().out
    assert "# whole run: web: " in written
    stages = yaml.safe_load(written)["data_stages"]
    assert [stage["start_training_step"] for stage in stages] == [1, 801]
    assert main([*arguments, "--format", "nanotron"]) == 2
    assert "--step-tokens" in capsys.readouterr().err
    assert main([*json_of, "--phase", "late", "--step-tokens", "5"]) == 2
    assert "--step-tokens" in capsys.readouterr().err
