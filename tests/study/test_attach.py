"""Attaching to a study, and what is refused before anything is written."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from optuna_demix.config import StudyConfig, load_study_config
from optuna_demix.errors import StudyError
from optuna_demix.study.attach import check_directions, create_command, load_study
from tests.tiny_study import write_study


@pytest.fixture
def config(tmp_path: Path) -> StudyConfig:
    return load_study_config(write_study(tmp_path))


def test_the_command_that_makes_a_study_fits_it_and_shows_no_password(
    config: StudyConfig,
) -> None:
    url = "postgresql://me:geheim@host/mix"
    command = create_command(config, storage=url, study_name="mix")
    assert command == (
        "optuna create-study --storage 'postgresql://me:***@host/mix' --study-name mix "
        "--directions maximize maximize"
    )


def test_an_unknown_study_is_refused_with_those_there_are() -> None:
    storage = optuna.storages.InMemoryStorage()
    with pytest.raises(StudyError, match=r"no study 'mix' in the storage \(it holds none\)"):
        load_study(storage, study_name="mix", sampler=None)
    for name in ("b", "a"):
        optuna.create_study(storage=storage, study_name=name)
    with pytest.raises(StudyError, match="it holds 'a', 'b'.*correct --study-name"):
        load_study(storage, study_name="mix", sampler=None)
    assert load_study(storage, study_name="a", sampler=None).study_name == "a"


@pytest.mark.parametrize(
    ("directions", "named"),
    [
        (["maximize"], "1 direction (maximize)"),
        (["maximize", "minimize"], "2 directions (maximize, minimize)"),
        (["maximize"] * 3, "3 directions"),
    ],
)
def test_other_directions_are_refused(
    config: StudyConfig, directions: list[str], named: str
) -> None:
    study = optuna.create_study(study_name="mix", directions=directions)
    with pytest.raises(StudyError) as refused:
        check_directions(study, config)
    line = str(refused.value)
    assert named in line and "2 objectives to maximize (language, reasoning)" in line
    assert "create the study with --directions maximize maximize" in line


def test_the_study_s_own_directions_are_taken(config: StudyConfig) -> None:
    check_directions(optuna.create_study(directions=["maximize"] * 2), config)
