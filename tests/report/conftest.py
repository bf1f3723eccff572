from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import optuna
import pytest

from optuna_demix import MixtureSpace
from optuna_demix.report import ReportData, gather
from tests.report.browsers import browser
from tests.report.studies import make_study, mixture_space


@pytest.fixture(scope="session")
def space() -> MixtureSpace:
    return mixture_space()


@pytest.fixture(scope="session")
def study(space: MixtureSpace) -> optuna.Study:
    return make_study(60, n_failed=3, space=space)


@pytest.fixture(scope="session")
def data(study: optuna.Study, space: MixtureSpace) -> ReportData:
    return gather(study, space)


@pytest.fixture(scope="package")  # no longer: its event loop would be in the way of others
def chromium() -> Iterator[Any]:
    """A headless browser."""
    with browser() as started:
        yield started


@pytest.fixture
def tab(chromium: Any) -> Iterator[Any]:
    """A page of a browser, which knows nothing of those before."""
    page = chromium.new_page(viewport={"width": 1500, "height": 1000})
    yield page
    page.close()
