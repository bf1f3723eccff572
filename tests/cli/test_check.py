"""``optuna-demix check``: what it says of a file that cannot be searched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from optuna_demix.cli import main

STUDY: dict[str, Any] = {
    "components": ["web", "code", "math"],
    "datasets": {"web": {"tokens": 10**9}, "code": {"tokens": 10**9}, "math": {"tokens": 10**7}},
    "capabilities": {"all": [{"task": "piqa", "metric": "acc"}]},
}


@pytest.mark.parametrize(
    ("mixture", "named"),
    [
        ({"upper": 0.3}, ["upper bound"]),
        ({"min_weight": 0.05, "upper": {"code": 0.02}}, ["min_weight", "'code'", "0.02"]),
        ({"budget": 10**9, "max_epochs": 1, "min_weight": 0.05}, ["min_weight", "'math'", "0.01"]),
        ({"budget": 10**9, "max_epochs": 1, "lower": {"math": 0.5}}, ["'math'"]),
        ({"lower": {"mth": 0.5}}, ["did you mean 'math'"]),
    ],
    ids=[
        "no mixture",
        "a bound below the minimum",
        "a cap below the minimum",
        "a cap below a bound",
        "a wrong name",
    ],
)
def test_what_excludes_all_mixtures_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], mixture: dict[str, Any], named: list[str]
) -> None:
    (tmp_path / "study.yaml").write_text(yaml.safe_dump({**STUDY, "mixture": mixture}))
    assert main(["check", str(tmp_path / "study.yaml"), "--no-tasks"]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("\n") == 1
    assert "study.yaml: mixture: " in shown.err
    assert all(word in shown.err for word in named), shown.err


@pytest.mark.parametrize(
    ("sampler", "named"),
    [
        ({"schedule": "demix", "schedule_sizes": [0]}, "sampler.schedule_sizes.0"),
        ({"exploration": -1}, "sampler.exploration"),
        ({"kl": float("inf")}, "sampler.kl"),
    ],
)
def test_a_wrong_option_of_the_sampler_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], sampler: dict[str, Any], named: str
) -> None:
    (tmp_path / "study.yaml").write_text(yaml.safe_dump({**STUDY, "sampler": sampler}))
    assert main(["check", str(tmp_path / "study.yaml"), "--no-tasks"]) == 2
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1 and named in shown.err
