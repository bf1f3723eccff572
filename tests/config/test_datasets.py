from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from optuna_demix.config import StudyConfig, load_study_config
from optuna_demix.errors import ConfigError


def load(folder: Path, **code: Any) -> StudyConfig:
    study = {
        "datasets": {"code": code},
        "components": ["code"],
        "capabilities": {"all": [{"task": "some_task", "metric": "acc"}]},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    return load_study_config(folder / "study.yaml")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ({"files": ["a.txt"], "hub": "me/code"}, "give either 'files' or 'hub', not both"),
        ({"files": ["a.txt"], "revision": "main"}, "'revision' belong to 'hub'"),
        ({"hub": "me/code", "format": "json"}, "'format' and 'token_dtype' belong to 'files'"),
        ({"format": "jsnol"}, "datasets.code.format: .*jsonl.*jsnol"),
        ({"token_dtype": "uint8"}, "datasets.code.token_dtype: .*uint16.*uint32"),
        ({"template": "{text}", "text_field": "body"}, "give either 'text_field' or 'template'"),
        ({"template": "text"}, "template: must hold fields in braces, such as {title}"),
        ({"template": "{}"}, "template: must hold fields in braces"),
        ({"template": "{0}"}, "template: must hold fields in braces"),
        ({"template": "{text.__class__}"}, "template: must hold fields in braces"),
        ({"template": "{text"}, "template: must be one for str.format .*{{ and }} mean"),
    ],
)
def test_a_dataset_that_cannot_be_meant_is_refused(
    code: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load(tmp_path, **code)
    assert "\n" not in str(caught.value)


def test_fields_of_a_template_are_named_once(tmp_path: Path) -> None:
    config = load(tmp_path, template="{{x}} {title}: {body:>3} {title}")
    assert config.datasets["code"].field_names == ["title", "body"]
    assert load(tmp_path).datasets["code"].field_names == ["text"]


def test_files_are_found_and_urls_left_as_they_are(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "m.idx", "m.bin", "[1].txt"):
        (tmp_path / name).write_text("")
    files = ["?.txt", "m", "[1].txt", "s3://bucket/*.txt", "."]
    found = load(tmp_path, files=files).dataset_files("code")
    names = ["a.txt", "b.txt", "m.bin", "[1].txt"]
    assert found == [
        *(str(tmp_path / name) for name in names),
        "s3://bucket/*.txt",
        str(tmp_path),
    ]
    assert load(tmp_path, hub="me/code").dataset_files("code") == []
    with pytest.raises(ConfigError, match="datasets.code.files: nothing matches 'c.txt'"):
        load(tmp_path, files=["c.txt"]).dataset_files("code")
