"""The quickstart's components and tasks, for benchmarks that score real proxies."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from optuna_demix.merging import LiveModel
    from optuna_demix.scoring import Benchmark

COMPONENTS = ("general", "prose", "code", "math", "docs")
CAPABILITIES = {
    "general": {
        "general_bpb": "bits_per_byte",
        "prose_bpb": "bits_per_byte",
        "general_choice": "acc",
    },
    "code": {"code_bpb": "bits_per_byte", "docs_bpb": "bits_per_byte", "code_choice": "acc"},
    "math": {"math_bpb": "bits_per_byte", "math_choice": "acc"},
}
MAX_LENGTH = 128
"""Tokens that its models were trained on at a time."""


def run_directory(arguments: argparse.ArgumentParser, path: Path) -> Path:
    """The folder of a quickstart that has trained its components, made absolute."""
    missing = [name for name in COMPONENTS if not (path / "models" / name).is_dir()]
    if missing or not (path / "tasks").is_dir():
        arguments.error(f"--run {path}: no finished quickstart there; run 'make quickstart' first")
    return path.resolve()


def live_model(run: Path) -> LiveModel:
    """A live model of the components that holds their mean."""
    from optuna_demix.merging import Arena, ComponentSet, LiveModel

    components = ComponentSet.open({name: run / "models" / name for name in COMPONENTS})
    with tempfile.TemporaryDirectory() as scratch:  # a map of a deleted file stays readable
        live = LiveModel(Arena.build(components, Path(scratch, "components.arena")))
        live.tokenizer  # noqa: B018  # read while the arena has a name
    live.merge(np.full(len(COMPONENTS), 1 / len(COMPONENTS)))
    return live


def benchmarks() -> list[Benchmark]:
    """The study's benchmarks, named without their common prefix."""
    from optuna_demix.scoring import Benchmark

    return [
        Benchmark(f"quickstart_{task}", metric, name=task)
        for tasks in CAPABILITIES.values()
        for task, metric in tasks.items()
    ]
