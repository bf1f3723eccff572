"""The manual's own code: its references and its picture are made from what there is."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

from optuna_demix.config import StudyConfig
from tests.docs.blocks import blocks_of

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, DOCS / "_ext" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_has_every_field_and_links_that_lead_somewhere() -> None:
    text = load("references").study_reference()
    fields = set(re.findall(r"^`(\w+)`$", text, re.MULTILINE))
    assert set(StudyConfig.model_fields) < fields
    assert {"budget", "blocks", "num_fewshot", "learning_rate", "subfolder"} < fields
    headings = {
        title.lower().replace(" ", "-") for title in re.findall(r"^## (.*)$", text, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#(.*?)\)", text)) <= headings
    assert "``" not in text.replace("```", "") and ":class:" not in text


def test_the_reference_has_every_command_and_option() -> None:
    text = load("references").command_reference()
    assert "## `optuna-demix worker`" in text and "### `optuna-demix arena build`" in text
    assert "`--n-trials N`\n: Stop when the study has N trials" in text


def test_the_picture_shows_the_results() -> None:
    picture = load("picture")
    made = picture.picture(json.loads(picture.RESULTS.read_text("utf-8")))
    assert made == picture.PICTURE.read_text("utf-8"), "run python docs/_ext/picture.py"
    assert len(made) < 100_000 and made.count("<circle") == 6


@pytest.mark.parametrize(
    "page",
    [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))],
    ids=lambda page: page.relative_to(ROOT).as_posix(),
)
def test_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+?)(?:#[^)]*)?\)", page.read_text("utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert missing == []


def test_every_page_is_in_the_table_of_contents() -> None:
    listed = (DOCS / "index.md").read_text("utf-8")
    pages = [file for kind in ("md", "rst", "ipynb") for file in DOCS.rglob(f"*.{kind}")]
    names = {file.relative_to(DOCS).with_suffix("").as_posix() for file in pages}
    made = ("_build", "jupyter_execute")  # by `make docs`
    names = {name for name in names if not name.startswith((*made, "index"))}
    assert names and not {name for name in names if f"\n{name}\n" not in listed}


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").split()) <= 700


def test_pages_have_no_directive_in_a_fence_of_code() -> None:
    languages = {block.language for page in DOCS.rglob("*.md") for block in blocks_of(page, ROOT)}
    assert languages <= {"python", "sh", "text", "yaml"}
