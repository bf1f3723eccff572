"""The studies to copy: each is one that the commands take, and names tasks that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from optuna_demix.config import load_study_config, objective_names, space_of
from optuna_demix.study import sampler_of

FOLDER = Path(__file__).parents[2] / "examples" / "studies"
STUDIES = sorted(FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_a_study_is_taken(file: Path) -> None:
    config = load_study_config(file)
    space = space_of(config)
    sampler_of(config, space)
    assert objective_names(config)
    assert space.contains(space.prior)


def test_what_the_studies_show_is_in_them() -> None:
    studies = {file.stem: load_study_config(file) for file in STUDIES}
    assert set(studies) == {
        "code_model",
        "generative",
        "lora_adapters",
        "small_team",
        "thirty_sources",
    }
    assert len(studies["thirty_sources"].components) == 30
    assert all(component.hub for component in studies["small_team"].components.values())
    assert studies["generative"].scoring.racing is not None
    assert studies["lora_adapters"].merging.delta_dtype == "int8"
    caps = space_of(studies["small_team"]).caps  # math: 4 * 9e9 / 1e11
    assert caps[2] == pytest.approx(0.36)


def test_the_tasks_are_named_in_files_of_lm_eval() -> None:
    lm_eval = pytest.importorskip("lm_eval")
    named: set[str] = set()
    for file in Path(lm_eval.__path__[0], "tasks").rglob("*.yaml"):
        text = file.read_text("utf-8")
        named |= set(re.findall(r"""^["']?(?:task|group)["']?: *["']?([\w-]+)""", text, re.M))
    for file in STUDIES:
        capabilities = load_study_config(file).capabilities.values()
        tasks = {one.task for benchmarks in capabilities for one in benchmarks}
        assert tasks and tasks <= named, tasks - named


@pytest.mark.slow  # lm-eval reads all its files for seconds
def test_the_tasks_exist_with_their_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lm_eval")
    from optuna_demix.study import check_benchmarks

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    for file in STUDIES:
        check_benchmarks(load_study_config(file), None)


def test_every_study_is_listed() -> None:
    listed = (FOLDER.parent / "README.md").read_text("utf-8")
    assert all(f"(studies/{file.name})" in listed for file in STUDIES)
