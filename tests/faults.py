"""The summary of the fault tests as JSON: what was injected, and what it cost.

``FAULTS_OUT=FILE.json make test-faults`` writes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from _common import write

PROPERTY = "faults"
"""Name of the user property in which a test's report carries its row."""


def note_inputs(item: Any, report: pytest.TestReport) -> None:
    """Let a fuzz test's report say how many inputs were tried, as hypothesis describes it."""
    described = getattr(item, "hypothesis_statistics", "")
    if report.when == "call" and item.get_closest_marker("fuzz") and described:
        inputs = sum(map(int, re.findall(r"(\d+) passing", described)))
        report.user_properties.append((PROPERTY, {"inputs": inputs}))


def write_summary(
    path: Path, reports: Iterable[pytest.TestReport], *, origin: dict[str, Any]
) -> None:
    """Write what fault tests have recorded, how many inputs fuzz tests tried, how they ended.

    Args:
        path: The file.
        reports: Of tests; those which have neither are left out.
        origin: Commit, machine and versions.
    """
    rows = [row for report in reports if (row := _row(report)) is not None]
    faults: dict[str, int] = {}
    for row in rows:
        for kind, count in row.get("faults", {}).items():
            faults[kind] = faults.get(kind, 0) + count
    total = {
        "faults": faults,
        "inputs": sum(row.get("inputs", 0) for row in rows),
        **{
            name: sum(row.get(name, 0) for row in rows)
            for name in ("trials", "repeated", "lost", "running")
        },
        "duration_s": round(sum(row["duration_s"] for row in rows), 1),
    }
    write(path, {**origin, "total": total, "rows": rows})


def _row(report: pytest.TestReport) -> dict[str, Any] | None:
    found: Any = dict(report.user_properties).get(PROPERTY)
    if report.when != "call" or found is None:
        return None
    name = report.nodeid.rpartition("::")[2].removeprefix("test_").partition("[")[0]
    row: dict[str, Any] = {"test": name.replace("_", " "), "outcome": report.outcome}
    return {**row, **found, "duration_s": round(report.duration, 1)}
