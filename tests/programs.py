"""The programs that tests and documents call, forked by :mod:`tests.forking`.

``optuna-demix``, ``optuna`` and ``python`` are real. Stand-ins:

- ``pip`` compares what is asked for with ``pyproject.toml`` and installs nothing: no network.
- ``make`` prints what it would do: a target runs for minutes, in an environment of its own.
- ``optuna-dashboard`` answers one request and ends: the real one serves until it is stopped.
- ``python benchmarks/…`` checks the options: a benchmark measures for minutes or hours.
- ``HfApi.list_repo_tree`` knows the release of the paper's components: no network.
"""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

from tests.forking import Program, serve

ROOT = Path(__file__).parents[1]
_MAKE = shutil.which("make") or "make"  # before a block's own path hides it


def optuna(arguments: list[str]) -> int:
    """Optuna's command; its arguments are those of the process."""
    from optuna.cli import main

    return main()


def optuna_demix(arguments: list[str]) -> int:
    """Our command; its arguments are those of the process."""
    from optuna_demix.cli import main

    return main()


def python(arguments: list[str]) -> int:
    from huggingface_hub import HfApi

    script, *options = arguments
    if script in ("-c", "-m"):
        program, *sys.argv[1:] = options
        if script == "-m":
            runpy.run_module(program, run_name="__main__", alter_sys=True)
        else:
            exec(compile(program, "<string>", "exec"), {"__name__": "__main__"})
        return 0
    sys.argv[:] = arguments
    sys.path[0] = str(Path(script).parent.resolve())
    if script.startswith("benchmarks/"):
        return _check_benchmark(script, options)
    with patch.object(HfApi, "list_repo_tree", autospec=True, side_effect=_release):
        if script == "-":
            exec(compile(sys.stdin.read(), "<stdin>", "exec"), {"__name__": "__main__"})
        else:
            runpy.run_path(script, run_name="__main__")
    return 0


def pip(arguments: list[str]) -> int:
    from packaging.requirements import Requirement

    command, *wanted = arguments
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    known = {name: Requirement(line) for lines in extras.values() for line in lines
             if (name := Requirement(line).name)}  # fmt: skip
    pinned = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line
    )
    for text in wanted:
        own = re.fullmatch(r"(?:\.|optuna-demix)(?:\[(.*)\])?", text)
        if own:
            assert set((own[1] or "models").split(",")) <= set(extras), text
        else:
            requirement = Requirement(text)
            assert requirement.name in known, f"{text} is no requirement of ours"
            version = pinned.get(requirement.name, pinned.get(requirement.name.replace("-", "_")))
            assert requirement.specifier.contains(version, prereleases=True), f"{text}: {version}"
    assert command == "install" and wanted
    return 0


def make(arguments: list[str]) -> int:
    return subprocess.run([_MAKE, "--dry-run", *arguments]).returncode


def optuna_dashboard(arguments: list[str]) -> int:
    from wsgiref.util import setup_testing_defaults

    import optuna
    from optuna_dashboard import wsgi

    (url,) = arguments
    request: dict[str, Any] = {"PATH_INFO": "/api/studies", "SCRIPT_NAME": ""}
    setup_testing_defaults(request)
    statuses: list[str] = []
    answer = wsgi(url)(request, lambda status, headers, *rest: statuses.append(status))
    body = b"".join(answer)
    names = {study.study_name for study in optuna.get_all_study_summaries(url)}
    shown = {study["study_name"] for study in json.loads(body)["study_summaries"]}
    assert statuses == ["200 OK"] and shown == names != set(), (statuses, body)
    return 0


PROGRAMS: dict[str, Program] = {
    "make": make,
    "optuna": optuna,
    "optuna-dashboard": optuna_dashboard,
    "optuna-demix": optuna_demix,
    "pip": pip,
    "python": python,
}


def _check_benchmark(script: str, options: list[str]) -> int:
    text = (ROOT / script).read_text("utf-8")
    text += (ROOT / "benchmarks" / "_common.py").read_text("utf-8")
    unknown = [o for o in options if o.startswith("--") and f'"{o}"' not in text]
    assert not unknown, f"{script} has no {unknown}"
    return 0


def _release(api: Any, repository: str, folder: str, **options: Any) -> Iterator[Any]:
    """The files that the study of the paper's setting expects in the paper's repository."""
    import yaml
    from huggingface_hub.hf_api import RepoFile

    study = yaml.safe_load((ROOT / "studies" / "demix_paper" / "study.yaml").read_text("utf-8"))
    for component in study["components"].values():
        assert component["hub"] == repository and component["subfolder"].startswith(folder)
        assert component["revision"] == options["revision"]
        for name in ("config.json", "model.safetensors.index.json"):
            yield RepoFile(path=f"{component['subfolder']}/{name}", size=1, oid="0")


if __name__ == "__main__":
    serve(sys.argv[1], PROGRAMS)
