"""The JSON schema of ``study.yaml``: it takes what is read, and describes every field."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from optuna_demix.cli import main
from optuna_demix.config import StudyConfig, study_schema
from optuna_demix.config._base import StrictModel

ROOT = Path(__file__).parents[2]
STUDIES = sorted(
    file for folder in ("studies", "examples/studies") for file in (ROOT / folder).rglob("*.yaml")
    if "capabilities:" in file.read_text("utf-8")
)  # fmt: skip
MINIMAL = {"components": ["web"], "capabilities": {"all": [{"task": "piqa", "metric": "acc"}]}}


class _EditorsLoader(yaml.SafeLoader):
    """Reads numbers as YAML 1.2 does, by which editors go: ``3e9`` is one."""


_EditorsLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("0123456789")
)


@pytest.fixture(scope="module")
def validator() -> Any:
    jsonschema = pytest.importorskip("jsonschema")
    schema = study_schema()
    kind = jsonschema.validators.validator_for(schema)
    kind.check_schema(schema)
    return kind(schema)


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_a_shipped_study_fits(file: Path, validator: Any) -> None:
    study = yaml.load(file.read_text("utf-8"), Loader=_EditorsLoader)
    assert [error.message for error in validator.iter_errors(study)] == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 1}, "seed"),
        ({"components": ["web", "web"]}, "web"),
        ({"mixture": {"lower": 2}}, "2"),
        ({"mixture": {"budget": 0.5}}, "0.5"),
        ({"scoring": {"racing": {"blocks": 3}}}, "3"),
        ({"proxy": "merge"}, "merge"),
        ({"capabilities": {"all": [{"task": "piqa"}]}}, "metric"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_a_mistake_is_found(change: dict[str, Any], said: str, validator: Any) -> None:
    assert list(validator.iter_errors(MINIMAL)) == []
    errors = list(validator.iter_errors({**MINIMAL, **change}))
    assert errors and any(said in error.message for error in errors)


def test_a_component_without_fields_fits(validator: Any) -> None:
    study = {**MINIMAL, "components": {"web": None, "code": {"path": "models/code"}}}
    assert list(validator.iter_errors(study)) == []
    StudyConfig.model_validate(study)


def _models(model: type[BaseModel] = StrictModel) -> list[type[BaseModel]]:
    return [model, *(each for child in model.__subclasses__() for each in _models(child))]


def test_every_field_is_described() -> None:
    bare = [
        f"{model.__name__}.{name}: write a docstring below the field"
        for model in _models()
        if model.__module__.startswith("optuna_demix.")
        for name, field in model.model_fields.items()
        if not field.description
    ]
    assert bare == []


def test_the_command_prints_it_without_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["check", "--schema"])
    assert stopped.value.code == 0
    schema = json.loads(capsys.readouterr().out)
    assert schema == study_schema()
    assert schema["$schema"].startswith("https://json-schema.org/")
    described = schema["$defs"]["MixtureConfig"]["properties"]["budget"]["description"]
    assert described == "Tokens of the planned run, all of its phases; needed for epoch caps."
