"""``optuna-demix fidelity``: what it writes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from optuna_demix import config, fidelity
from optuna_demix.cli import main


def test_each_capability_has_a_plot_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``a/b`` and ``a_b`` were one file, and the second overwrote the first."""
    names = ["math", "a/b", "a_b", "a b", "../up", "é", ".."]
    result, given = SimpleNamespace(benchmark_names=names), SimpleNamespace(run_path=tmp_path)
    monkeypatch.setattr(config, "load_study_config", lambda path: given)
    monkeypatch.setattr(fidelity, "check_fidelity", lambda *args, **options: result)
    monkeypatch.setattr(fidelity, "scatter", lambda result, capability: capability)
    assert main(["fidelity", "study.yaml", "--plots", str(tmp_path / "plots")]) == 0
    written = {file.read_text(): file.name for file in (tmp_path / "plots").iterdir()}
    assert sorted(written) == sorted(names)
    assert written["math"] == "math.svg"
    assert [path.name for path in tmp_path.iterdir()] == ["plots"]
