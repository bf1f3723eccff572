"""``optuna-demix recommend`` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import optuna
import pytest
import yaml

from optuna_demix import MixtureSpace
from optuna_demix.cli import main

SPACE = MixtureSpace(["web", "code", "math"], name="w")  # capabilities are named so as well
RATE = optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True)


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A study of mixtures and learning rates, with two capabilities that trade off."""
    folder = tmp_path_factory.mktemp("study")
    study_yaml = {
        "components": list(SPACE.components),
        "capabilities": {
            "code": [{"task": "piqa", "metric": "acc"}],
            "math": [{"task": "arc_easy", "metric": "acc"}],
        },
        "sampler": {"composite": "pareto", "seed": 0},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(study_yaml))
    url = f"sqlite:///{folder / 'mix.db'}"
    study = optuna.create_study(storage=url, study_name="mix", directions=["maximize", "maximize"])
    rng = np.random.default_rng(0)
    for w in SPACE.sample(24, rng):
        rate = float(10 ** rng.uniform(-4, -2))
        missed = 0.1 * np.log10(rate / 1e-3) ** 2
        study.add_trial(
            SPACE.create_trial(
                w,
                [float(w[1] - missed), float(w[2] - missed)],
                params={"learning_rate": rate},
                distributions={"learning_rate": RATE},
            )
        )
    return [str(folder / "study.yaml"), "--storage", url, "--study-name", "mix"]


def test_the_front_and_the_other_parameters_are_printed(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "summary.json"
    assert main(["recommend", *arguments, "--json", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "learning_rate" in shown and "\nFront: " in shown
    summary = json.loads(file.read_text())
    recommended = summary["mixtures"]["recommended"]
    assert 3e-4 < recommended["params"]["learning_rate"] < 3e-3
    assert recommended in summary["front"]
    assert recommended["merge_weights"]["web"] < 0.1


def test_a_merge_cannot_verify_other_parameters(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["recommend", *arguments, "--verify"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "(learning_rate), which a merge does not have; leave --verify out" in line


def test_export_tells_the_other_parameters(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", *arguments, "--format", "json"]) == 0
    out, err = capsys.readouterr()
    assert "with learning_rate = 0.00" in err and "math" in json.loads(out)["datasets"]
