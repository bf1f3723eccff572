"""What a worker leaves in the study beside its trials."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import yaml
from optuna_dashboard import get_note
from optuna_dashboard._custom_plot_data import get_plotly_graph_objects

from optuna_demix import MixtureObjective, MixtureSpace
from optuna_demix.attributes import REPORT_ATTR
from optuna_demix.config import StudyConfig, load_study_config
from optuna_demix.workers.run import run_worker
from tests.report.studies import CAPABILITIES, COMPONENTS, true_scores

pytestmark = pytest.mark.xdist_group("report")


FEW = {capability: names[:1] for capability, names in CAPABILITIES.items()}


class Surface:
    """Model and scorer at once: scores follow from the weights."""

    names = COMPONENTS

    def merge(self, w: np.ndarray) -> None:
        self.w = w

    def score(self) -> dict[str, float]:
        names = [name for names in CAPABILITIES.values() for name in names]
        scores = dict(zip(names, true_scores(self.w[None])[0].tolist(), strict=True))
        return {name: scores[name] for names in FEW.values() for name in names}


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    def build(config: StudyConfig, space: MixtureSpace, **options: Any) -> Any:
        surface = Surface()
        return MixtureObjective(space, surface, surface, FEW), {"made": "up"}

    monkeypatch.setattr("optuna_demix.workers.run.build_objective", build)
    url = f"sqlite:///{tmp_path / 'mix.db'}"
    optuna.create_study(study_name="mix", storage=url, directions=["maximize"] * 3)
    return url


def config_of(folder: Path, **changes: Any) -> StudyConfig:
    capabilities = {
        capability: [{"task": n.split("/")[0], "metric": n.split("/")[1]} for n in names]
        for capability, names in FEW.items()
    }
    study = {
        "components": list(COMPONENTS),
        "capabilities": capabilities,
        "mixture": {"name": ""},  # a capability is named as a component
        "sampler": {"n_startup_trials": 64},  # what is proposed does not matter here
        **changes,
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    return load_study_config(folder / "study.yaml")


def work(config: StudyConfig, url: str, n_trials: int, **options: Any) -> optuna.Study:
    report = run_worker(
        config, storage=url, study_name="mix", n_trials=n_trials, progress=False, **options
    )
    assert report.healthy and report.failed == 0
    return optuna.load_study(study_name="mix", storage=url)


def reported(study: optuna.Study) -> dict[str, Any] | None:
    last = study._storage.get_study_system_attrs(study._study_id).get(REPORT_ATTR)
    assert last is None or isinstance(last, dict)
    return last


def test_it_leaves_the_report_of_all_trials(url: str, tmp_path: Path) -> None:
    config = config_of(tmp_path)
    study = work(config, url, 9)
    assert reported(study) is None  # too few yet
    study = work(config, url, 12)
    last = reported(study)
    # The first one came with the tenth trial; the last one when the study had its trials.
    assert last is not None and last["n_trials"] == 12
    assert "From 12 trials" in get_note(study)
    attrs = study._storage.get_study_system_attrs(study._study_id)
    assert len(get_plotly_graph_objects(attrs)) == 5
    assert all(trial.user_attrs["violation"] == 0.0 for trial in study.trials)
    again = work(config, url, 12)
    assert reported(again) == last  # nothing new, nothing written


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A report is due with the second trial."""
    monkeypatch.setattr("optuna_demix.report.reporter.MIN_TRIALS", 2)


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("how", ["option", "file", "not installed"])
def test_it_leaves_none_where_none_is_wanted(
    url: str, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "not installed":
        monkeypatch.setattr("optuna_demix.report.dashboard.is_available", lambda: False)
    config = config_of(tmp_path, **({"dashboard": {"push": False}} if how == "file" else {}))
    study = work(config, url, 3, dashboard=how != "option")
    assert get_note(study) == "" and reported(study) is None
    assert all(trial.user_attrs["violation"] == 0.0 for trial in study.trials)


@pytest.mark.usefixtures("soon")
def test_a_report_that_fails_ends_no_worker(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: Any, **options: Any) -> None:
        raise RuntimeError("no space left")

    monkeypatch.setattr("optuna_demix.report.write.gather", broken)
    said: list[str] = []
    study = work(config_of(tmp_path), url, 3, report=said.append)
    assert len(study.trials) == 3
    assert said == ["dashboard not updated (RuntimeError: no space left)"]
    assert reported(study) is None
