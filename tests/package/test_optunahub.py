"""``package/`` as OptunaHub's registry takes it: it loads, its example runs, its card is whole."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import optuna_demix

optunahub = pytest.importorskip("optunahub")

REGISTRY = Path(__file__).parents[2] / "package"
PACKAGE = REGISTRY / "samplers" / "demix"
README = (PACKAGE / "README.md").read_text("utf-8")


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Load from here what the example loads from the network."""
    load = optunahub.load_local_module
    monkeypatch.setattr(
        optunahub, "load_module", lambda package: load(package, registry_root=str(REGISTRY))
    )
    monkeypatch.chdir(REGISTRY.parent)  # its own tests name the registry from here


def test_it_hands_on_what_our_package_has() -> None:
    module = optunahub.load_module("samplers/demix")
    assert set(module.__all__) == {"DemixSampler", "MixtureSpace", "recommend"}
    assert all(getattr(module, name) is getattr(optuna_demix, name) for name in module.__all__)


def test_the_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(PACKAGE / "example.py"), run_name="__main__")
    assert "Recommended mixture" in capsys.readouterr().out


def test_the_example_of_the_card_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(compile(block, "README.md", "exec"), {})
    assert "Recommended mixture" in capsys.readouterr().out


def test_its_own_tests_pass() -> None:
    names = runpy.run_path(str(PACKAGE / "tests" / "test_sampler.py"))
    tests = [test for name, test in names.items() if name.startswith("test_")]
    assert len(tests) == 2
    for test in tests:
        test()


def test_the_card_has_every_field_of_the_registry() -> None:
    _, front, text = README.split("---\n", 2)
    card = yaml.safe_load(front)
    assert set(card) == {
        "author",
        "title",
        "description",
        "tags",
        "optuna_versions",
        "license",
    }
    # Text all of it, as the registry's page expects; "sampler" for what lies in samplers/.
    assert all(isinstance(value, str) for name, value in card.items() if name[-1] != "s")
    assert "sampler" in card["tags"] and all(isinstance(tag, str) for tag in card["tags"])
    assert card["license"] == "MIT License"
    assert re.findall("^## (.*)", text, re.MULTILINE) == [
        "Abstract",
        "APIs",
        "Installation",
        "Example",
        "Others",
    ]


def test_it_asks_for_this_version() -> None:
    (line,) = (PACKAGE / "requirements.txt").read_text("utf-8").split()
    required = Requirement(line)
    assert required.name == "optuna-demix"
    assert required.specifier.contains(optuna_demix.__version__)


def test_the_license_is_ours() -> None:
    ours = (REGISTRY.parent / "LICENSE").read_text("utf-8")
    assert (PACKAGE / "LICENSE").read_text("utf-8") == ours
