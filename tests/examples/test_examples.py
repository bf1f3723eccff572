"""Every example is run as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
EXPECTED = {
    "plain_optimize.py": "recommended",
    "ask_and_tell.py": "best of 32",
    "many_workers.py": "best of ",
}


def run(name: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, EXAMPLES / name],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("name", EXPECTED)
def test_an_example_runs(name: str) -> None:
    done = run(name)
    assert done.returncode == 0, done.stderr
    assert EXPECTED[name] in done.stdout and "Warning" not in done.stderr, done.stderr


def test_ray_tune_uses_the_sampler() -> None:
    pytest.importorskip("ray.tune", reason="Ray Tune is not installed; pip install 'ray[tune]'")
    done = run("ray_tune.py")
    assert done.returncode == 0, done.stderr
    assert "best of 16" in done.stdout


def test_every_example_is_listed_and_run() -> None:
    files = {file.name for file in EXAMPLES.glob("*.py")}
    assert files == {*EXPECTED, "ray_tune.py"}
    listed = (EXAMPLES / "README.md").read_text()
    assert all(f"({name})" in listed for name in files)
