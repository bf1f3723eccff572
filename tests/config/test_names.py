"""Names of datasets and components, and the folders made of them."""

from __future__ import annotations

import os
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from optuna_demix.config import StudyConfig, load_study_config
from optuna_demix.config._names import check_folders, check_name
from optuna_demix.config.space import space_of
from optuna_demix.errors import ConfigError
from tests.fuzzing import N_INPUTS

CAPABILITIES = {"all": [{"task": "arc_easy", "metric": "acc"}]}


def load(folder: Path, **study: Any) -> StudyConfig:
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump({"capabilities": CAPABILITIES, **study}, sort_keys=False))
    return load_study_config(file)


@pytest.mark.parametrize(
    "name", ["dolma3_cc/health_high", "a/b/c", "C++ code", "b..c", "x.y", "é", "~me", "$HOME", "*"]
)
def test_a_name_may_hold_slashes_and_much_else(tmp_path: Path, name: str) -> None:
    config = load(
        tmp_path,
        components=[name, "web"],
        datasets={name: {"tokens": 100}, "web": {"tokens": 100}},
        general={"dataset": "web", "share": 0.5},
        mixture={"upper": {name: 0.5}, "budget": 100, "max_epochs": 4},
    )
    assert config.component_path(name) == tmp_path / "run" / "models" / name
    assert config.composition_of(name) == {name: 0.5, "web": 0.5}
    assert space_of(config).components == (name, "web")


UNSAFE = {
    "../web": "begins with a dot",
    "web/../..": "begins with a dot",
    "web/./code": "begins with a dot",
    ".partial": "begins with a dot",
    "/web": "a slash must stand between two parts",
    "web/": "a slash must stand between two parts",
    "web//code": "a slash must stand between two parts",
    "/": "a slash must stand between two parts",
    "": "it is empty",
    "web\\code": "a backslash",
    "web\0": "a control character",
    "web\ncode": "a control character",
    " web": "begins or ends with a space",
    "web /code": "begins or ends with a space",
    "w" * 201: "more than 200 bytes",
    "é" * 101: "more than 200 bytes",
}


@pytest.mark.parametrize(("name", "reason"), UNSAFE.items(), ids=repr)
@pytest.mark.parametrize("field", ["components", "datasets"])
def test_an_unsafe_name_is_refused_with_the_reason(
    tmp_path: Path, field: str, name: str, reason: str
) -> None:
    study = {"components": ["web"], "datasets": {"web": {}}}
    study[field] = {**dict.fromkeys(study[field], {}), name: {}}
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, **study)
    message = str(caught.value)
    assert f"{field}: " in message and reason in message and message.endswith("; change it")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("components", "said"),
    [
        (["base"], "the folder 'base' holds other models"),
        (["Base/x"], "the folder 'base' holds other models"),
        (["references/0"], "the folder 'references' holds other models"),
        (["web", "Web"], "'web' and 'Web' are one folder"),
        (["A/b", "a/B"], "'A/b' and 'a/B' are one folder"),
        (["caf\u00e9", "cafe\u0301"], "are one folder"),
        (["web/news/old", "web"], "the folder of 'web/news/old' would lie in that of 'web'"),
        (["web", "WEB/news"], "the folder of 'WEB/news' would lie in that of 'web'"),
    ],
)
def test_no_two_components_share_a_folder(
    tmp_path: Path, components: list[str], said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, components=components)
    assert said in str(caught.value)


def test_components_of_a_hub_have_no_folder(tmp_path: Path) -> None:
    config = load(tmp_path, components={"web": {"hub": "me/a"}, "web/news": {"hub": "me/b"}})
    assert list(config.components) == ["web", "web/news"]


def test_datasets_have_no_folder(tmp_path: Path) -> None:
    datasets = {"web": {}, "Web": {}, "web/news": {}, "base": {}}
    config = load(tmp_path, datasets=datasets, components={"all": {"composition": {"web": 1.0}}})
    assert config.dataset_names == list(datasets)


PARTS = st.sampled_from(["a", "A", "b", "..", ".", "", "\\", "base", "é", "e\u0301", " ", "x.y"])
NAMES = st.lists(PARTS, min_size=1, max_size=4).map("/".join)


@pytest.mark.fuzz
@settings(max_examples=N_INPUTS, deadline=None)
@given(st.lists(NAMES, min_size=1, max_size=4, unique=True))
def test_folders_of_accepted_names_are_apart_and_inside(names: list[str]) -> None:
    try:
        for name in names:
            check_name(name, "components")
        check_folders(names)
    except ValueError:
        return
    home = os.path.join(os.sep, "run", "models")
    paths = [os.path.normpath(os.path.join(home, name)) for name in names]
    assert all(path.startswith(home + os.sep) for path in paths)
    assert not {os.path.join(home, taken) for taken in ("base", "references")} & set(paths)
    for one, other in combinations((path.casefold() + os.sep for path in paths), 2):
        assert not one.startswith(other) and not other.startswith(one)
