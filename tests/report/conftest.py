from __future__ import annotations

import optuna
import pytest

from optuna_demix import MixtureSpace
from optuna_demix.report import ReportData, gather
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
