from __future__ import annotations

import pytest

from optuna_demix.report import ReportData
from optuna_demix.report.plots import plot_effects
from tests.report.studies import CAPABILITIES, COMPONENTS

pytestmark = pytest.mark.xdist_group("report")


def test_the_heat_map_names_rows_and_columns(data: ReportData) -> None:
    (cells,) = plot_effects(data).data
    assert list(cells.x) == list(COMPONENTS)
    assert sorted(cells.y) == sorted(n for names in CAPABILITIES.values() for n in names)
    z = dict(zip(cells.y, cells.z, strict=True))
    assert z["gsm8k/exact_match"].argmax() == COMPONENTS.index("math_high")
    assert z["humaneval/pass@1"].argmax() == COMPONENTS.index("code_high")
    assert z["hellaswag/acc_norm"].argmax() == COMPONENTS.index("general")
    assert cells.zmin == -cells.zmax  # white is no effect
    assert cells.text[0][0] == f"{cells.z[0][0]:+.2f}"
