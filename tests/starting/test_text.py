"""The text of a draft is read as what the draft says, whatever its names hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from optuna_demix.config.loading import read_study_config
from optuna_demix.starting.benchmarks import Chosen
from optuna_demix.starting.draft import Draft, Entry
from optuna_demix.starting.names import usable_names
from optuna_demix.starting.sizes import compact, read_number
from optuna_demix.starting.text import scalar, study_text

TEXT = st.text(st.characters(codec="utf-8"), max_size=60)
NAMES = st.lists(TEXT.filter(bool), unique=True, min_size=2, max_size=5).map(
    lambda found: list(usable_names(found).values())
)
ODD = [
    "null",
    "yes",
    "1e9",
    "~",
    "a: b",
    "a #b",
    "- x",
    "{x}",
    "'",
    '"',
    "<<",
    "=",
    "",
    "\x85",
    "!",
]


def draft_of(names: list[str], **fields: Any) -> Draft:
    given: dict[str, Any] = {
        "run_dir": "run",
        "base": None,
        "datasets": {},
        "components": {name: Entry({}) for name in names},
        "general": None,
        "mixture": {},
        "capabilities": {"general": [Chosen("piqa", "acc_norm")]},
        "scoring": {},
    }
    return Draft(**{**given, **fields})


@settings(deadline=None)
@given(TEXT)
def test_a_text_is_read_as_it_was(value: str) -> None:
    assert yaml.safe_load(f"[{scalar(value)}, x]") == [value, "x"]
    assert yaml.safe_load(f"{scalar(value)}: {scalar({'a': value})}") == {value: {"a": value}}


@pytest.mark.parametrize("value", ODD, ids=ascii)
def test_what_yaml_would_take_for_something_else_is_quoted(value: str) -> None:
    assert yaml.safe_load(f"{{{scalar(value)}: {scalar(value)}}}") == {value: value}


@settings(deadline=None, max_examples=40)
@given(NAMES, TEXT, TEXT, TEXT.filter(lambda text: bool(text.strip())))
def test_a_study_is_read_as_it_was_drafted(
    names: list[str], path: str, note: str, task: str
) -> None:
    draft = draft_of(
        names,
        base=path,
        datasets={
            name: Entry({"files": [path], "tokens": compact(8_020_000_000)}, note)
            for name in names
        },
        components={name: Entry({"path": path}, note) for name in names},
        general=names[0],
        mixture={"budget": Entry(compact(10**12), note), "max_epochs": Entry(4.0, note)},
        capabilities={task: [Chosen(task, "acc", True, note), Chosen(path or "x", "acc_norm")]},
        scoring={"include_path": Entry([path], note)},
        config_of=names[-1],
    )
    text = study_text(draft, name=f"{task}.yaml")
    config = read_study_config(text, Path("study.yaml"))
    assert list(config.components) == list(config.datasets) == names
    assert {component.path for component in config.components.values()} == {path}
    assert {data.tokens for data in config.datasets.values()} == {8_020_000_000}
    assert config.base == path and config.general is not None
    assert config.general.dataset == names[0] and config.merging.config_of == names[-1]
    assert config.mixture.budget == 10**12 and config.mixture.max_epochs == 4
    assert [b.task for b in config.capabilities[task]] == [task, path or "x"]
    assert config.scoring.include_path == [path]


def test_components_that_are_trained_are_a_list_of_names() -> None:
    text = study_text(draft_of(["web", "code"]), name="my study.yaml")
    assert "components: [web, code]  # trained by 'optuna-demix train'" in text
    assert "optuna-demix check 'my study.yaml'" in text


@given(st.integers(1, 10**15))
def test_a_number_is_read_as_it_was(number: int) -> None:
    shown = compact(number)
    assert read_number(str(shown)) == number and yaml.safe_load(f"[{shown}]") == [shown]
