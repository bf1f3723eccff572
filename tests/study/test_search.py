"""What a ``study.yaml`` says to sampler, recommendation, terminator and report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest

from optuna_demix import MixtureSpace
from optuna_demix.config import StudyConfig, load_study_config
from optuna_demix.errors import StudyError
from optuna_demix.search import SearchOptions
from optuna_demix.study import options_from, sampler_of
from tests.tiny_study import write_study

SPACE = MixtureSpace(["prose", "code", "math"])


def config_of(folder: Path, sampler: dict[str, Any], **changes: Any) -> StudyConfig:
    return load_study_config(write_study(folder, sampler=sampler, **changes))


def test_options_are_those_of_the_file(tmp_path: Path) -> None:
    given = {"surrogate": "lightgbm", "schedule": "demix", "kl": 0.5, "seed": 7}
    config = config_of(tmp_path, {**given, "composite": "pareto", "exploration": 2.0})
    assert options_from(config) == SearchOptions(**given, composite="pareto")  # type: ignore[arg-type]
    assert sampler_of(config, SPACE).options == options_from(config)


def test_weights_by_capability_follow_their_order(tmp_path: Path) -> None:
    config = config_of(tmp_path, {"composite": {"reasoning": 3.0, "language": 1.0}})
    assert options_from(config).composite == (0.25, 0.75)


def test_one_objective_needs_no_composite(tmp_path: Path) -> None:
    config = config_of(tmp_path, {"composite": "pareto"}, objective="composite")
    assert options_from(config).composite == "rank"


def test_the_seed_of_a_worker_is_its_samplers_alone(tmp_path: Path) -> None:
    config = config_of(tmp_path, {"seed": 7})
    assert sampler_of(config, SPACE, seed=8).options == SearchOptions(seed=8)
    assert options_from(config).seed == 7


def test_earlier_studies_come_from_the_storage(tmp_path: Path) -> None:
    config = config_of(tmp_path, {"warm_start": ["old"]})
    storage = optuna.storages.InMemoryStorage()
    with pytest.raises(StudyError, match="no study 'old'"):
        options_from(config, storage)
    optuna.create_study(storage=storage, study_name="old")
    options = options_from(config, storage)
    assert [study.study_name for study in options.warm_start] == ["old"]
    assert sampler_of(config, SPACE, options).options == options
    assert options_from(config).warm_start == ()
