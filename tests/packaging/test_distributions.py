"""The built wheel in fresh environments, and the source distribution beside its repository."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.packaging.interpreters import ROOT, VERSIONS, interpreter

pytestmark = pytest.mark.packaging

UV = shutil.which("uv")
NOT_IN_IT = (".ci/", ".github/", ".gitignore")
SEARCH = (ROOT / "examples" / "plain_optimize.py").read_text("utf-8")


def run(*words: str | Path, cwd: Path, status: int = 0) -> str:
    """Run a command that shall find nothing of this repository; returns all that it prints."""
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == status, done.stdout[-5000:]
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with source distribution and wheel, the latter made from the former."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (file,) = built.glob("*.whl")
    return file


def environment(folder: Path, python: str, *requirements: str) -> Path:
    """Make an environment with some requirements; returns its folder of programs."""
    if UV:
        links = [f"--find-links={url}" for url in os.environ.get("PIP_FIND_LINKS", "").split()]
        run(UV, "venv", "--quiet", "--python", python, folder, cwd=folder.parent)
        install = [UV, "pip", "install", "--python", str(folder / "bin" / "python"), *links]
    else:
        run(python, "-m", "venv", folder, cwd=folder.parent)
        install = [str(folder / "bin" / "python"), "-m", "pip", "install"]
    constraints = ROOT / "constraints.txt"
    run(*install, "--quiet", "-c", constraints, *requirements, cwd=folder.parent)
    return folder / "bin"


@pytest.mark.parametrize("version", VERSIONS)
def test_the_wheel_searches_on_every_python(version: str, wheel: Path, tmp_path: Path) -> None:
    python = interpreter(version)
    if python is None:
        pytest.skip(f"no Python {version} here")
    programs = environment(tmp_path / "env", python, str(wheel))
    assert "Recommended mixture" in run(programs / "python", "-c", SEARCH, cwd=tmp_path)
    refused = run(programs / "optuna-demix", "demo", cwd=tmp_path, status=2)
    assert "pip install 'optuna-demix[models]'" in refused and refused.count("\n") == 1
    assert not (tmp_path / "demix-demo").exists()


@pytest.mark.parametrize("version", VERSIONS)
def test_every_extra_resolves_on_every_python(version: str, tmp_path: Path) -> None:
    if UV is None:
        pytest.skip("uv resolves for other interpreters, and is not here")
    found = run(
        UV,
        "pip",
        "compile",
        "--quiet",
        f"--python-version={version}",
        "--extra=all",
        ROOT / "pyproject.toml",
        cwd=tmp_path,
    )
    assert all(f"\n{name}==" in found for name in ("torch", "lm-eval", "psycopg", "grpcio"))


def test_the_demo_runs_from_the_wheel_and_goes_on(wheel: Path, tmp_path: Path) -> None:
    programs = environment(tmp_path / "env", sys.executable, f"{wheel}[models]")
    words = (programs / "optuna-demix", "demo", "--no-progress", "--n-workers", "1")
    assert "Recommended mixture of" in run(*words, "--n-trials", "6", cwd=tmp_path)
    answer = json.loads((tmp_path / "demix-demo" / "summary.json").read_text("utf-8"))
    assert abs(sum(answer["mixtures"]["recommended"]["merge_weights"].values()) - 1) < 1e-6
    again = run(*words, "--n-trials", "8", cwd=tmp_path)
    assert "base: is there already" in again and "from 8 trials" in again


def test_the_source_distribution_has_all_that_the_repository_has(
    built: Path, tmp_path: Path
) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("this is no clone")
    (file,) = built.glob("*.tar.gz")
    with tarfile.open(file) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    listed = run("git", "ls-files", cwd=ROOT).split("\n")
    missing = [name for name in listed if name and not name.startswith(NOT_IN_IT)]
    assert [name for name in missing if name not in names and (ROOT / name).exists()] == []


def test_the_source_distribution_passes_its_own_tests(built: Path, tmp_path: Path) -> None:
    (file,) = built.glob("*.tar.gz")
    with tarfile.open(file) as archive:
        archive.extractall(tmp_path, filter="data")
    (root,) = tmp_path.iterdir()
    pytest_of = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    # The rest needs minutes; that it is there at all is seen when it is collected.
    run(*pytest_of, "--collect-only", cwd=root)
    done = run(*pytest_of, "tests/mixture", "tests/test_layout.py", "tests/cli", cwd=root)
    assert " passed" in done and " failed" not in done
