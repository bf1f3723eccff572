from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from _common import provenance
from hypothesis import settings

from tests.faults import note_inputs, write_summary

if TYPE_CHECKING:
    from tests.storage.servers import PostgreSQL

# Their asserts should explain themselves as ours do.
pytest.register_assert_rewrite("optuna.testing.pytest_samplers")

# New examples are for a developer's desk; a change is judged by the same ones each time.
# A busy machine is slow: no example has a deadline.
settings.register_profile("desk", deadline=None)
settings.register_profile("ci", derandomize=True, deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "desk")


_ORIGIN = pytest.StashKey[dict[str, Any]]()


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny study with its components; copy it, do not change it."""
    from tests.tiny_study import make_study

    root = tmp_path_factory.mktemp("prepared") / "study"
    make_study(root)
    return root


@pytest.fixture(scope="module", autouse=True)
def _frozen() -> Iterator[None]:
    """What a file of tests leaves stays, most of it imported modules: no more walks over it."""
    yield
    _freeze()


@pytest.fixture
def root(prepared: Path, tmp_path: Path) -> Path:
    """A copy of the tiny study of a test's own."""
    return Path(shutil.copytree(prepared, tmp_path / "study"))


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A server; make a database of your own in it."""
    from tests.storage.servers import PostgreSQL

    server = PostgreSQL()
    yield server
    server.close()


def pytest_configure(config: pytest.Config) -> None:
    if "FAULTS_OUT" in os.environ:
        config.stash[_ORIGIN] = provenance()  # now: the commit may change while tests run


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        reasons = [str(mark.kwargs.get("reason")) for mark in item.iter_markers("skipif")]
        if any("CUDA" in reason for reason in reasons):
            item.add_marker("gpu")  # what `make test-gpu` runs


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[Any]:
    # What is imported stays: each collection would walk over it, a third of a second every time.
    gc.disable()
    try:
        return (yield)
    finally:
        _freeze()
        gc.enable()


def _freeze() -> None:
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[Any]:
    report = yield
    note_inputs(item, report)
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    path = os.environ.get("FAULTS_OUT")
    if path:
        ended = terminalreporter.stats.get("passed", []) + terminalreporter.stats.get("failed", [])
        write_summary(Path(path), ended, origin=terminalreporter.config.stash[_ORIGIN])
