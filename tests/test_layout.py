"""The floors of the package: an import never runs upward, and names stay unambiguous."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "optuna_demix"

FLOORS = (
    (
        "_apportion",
        "_children",
        "_files",
        "_lazy",
        "_process_id",
        "_progress",
        "_stop",
        "_text_table",
        "_transaction",
        "_typing",
        "_wording",
        "attributes",
        "errors",
    ),
    ("ensemble", "export", "merging", "mixture", "quickstart", "scoring", "storage", "surrogate"),
    ("config", "search"),
    ("study", "training"),
    ("bill", "fidelity", "report", "starting"),
    ("workers",),
    ("cli",),
    ("__init__", "__main__"),
)
FLOOR_OF = {name: floor for floor, names in enumerate(FLOORS) for name in names}


def _imports() -> Iterator[tuple[str, str, str]]:
    """Each import of one of our own packages: where it stands, its package, and the other one."""
    for file in sorted(PACKAGE.rglob("*.py")):
        place = file.relative_to(PACKAGE)
        own = place.parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom):
                module, names = node.module or "", [alias.name for alias in node.names]
                assert node.level == 0, f"{place}:{node.lineno} is relative"
            elif isinstance(node, ast.Import):
                module, names = "", [alias.name for alias in node.names]
            else:
                continue
            for name in names:
                parts = f"{module}.{name}".strip(".").split(".")
                if parts[0] == "optuna_demix":
                    other = parts[1] if len(parts) > 1 and parts[1] in FLOOR_OF else "__init__"
                    yield f"{place}:{node.lineno}", own, other


def test_every_package_has_its_floor() -> None:
    there = {path.stem for path in PACKAGE.glob("*.py")}
    there |= {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert there == set(FLOOR_OF)


def test_imports_run_downward() -> None:
    upward = [
        f"{where}: {own} imports {other}"
        for where, own, other in _imports()
        if other != own
        and FLOOR_OF[other] >= FLOOR_OF[own]
        # The version is data that stands in the package itself.
        and (own, other) != ("cli", "__init__")
        and not (FLOOR_OF[own] == FLOOR_OF[other] == 0)
    ]
    assert not upward


@pytest.mark.parametrize(
    "package", sorted(path.parent for path in PACKAGE.rglob("__init__.py")), ids=lambda p: p.name
)
def test_no_package_hands_on_a_name_that_one_of_its_modules_has(package: Path) -> None:
    """``import package.name`` and ``from package import name`` would mean different things."""
    tree = ast.parse((package / "__init__.py").read_text())
    handed_on = {
        element.value
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == "__all__"
        for element in getattr(node.value, "elts", [])
    }
    modules = {path.stem for path in package.glob("*.py")}
    modules |= {path.parent.name for path in package.glob("*/__init__.py")}
    assert not handed_on & modules


def test_no_file_is_longer_than_a_reader_can_hold() -> None:
    lengths = {
        str(path.relative_to(PACKAGE)): len(path.read_text().splitlines())
        for path in PACKAGE.rglob("*.py")
    }
    assert not {name: length for name, length in lengths.items() if length > 500}
