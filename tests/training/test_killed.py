"""Every model is trained exactly once, whoever is killed, and comes out the same."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.forking import run_forked
from tests.training.samples import Make, weights

pytest.importorskip("torch")
ROOT = Path(__file__).parents[2]


def kill_and_train(make: Make, folder: str, seed: int, references: int) -> dict[str, Any]:
    configs = [make(f"{folder}-alone"), make(f"{folder}-shared")]
    studies = [str(config.source) for config in configs]
    done = run_forked(
        ["python", "-m", "tests.training.hosts", *studies, str(seed), str(references)],
        cwd=ROOT,
        environment={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    alone, shared = (config.run_path / "models" for config in configs)
    names = [str(file.parent.relative_to(alone)) for file in alone.rglob("training.json")]
    assert len(names) == 4 + references
    for name in names:
        assert weights(shared / name) == weights(alone / name), name
    assert sorted(path.name for path in shared.iterdir()) == sorted(
        path.name for path in alone.iterdir()
    )
    found: dict[str, Any] = json.loads(done.stdout)
    said = "\n".join(found["said"].values())
    placed = Counter(re.findall(r"^placed (\S+)", said, re.MULTILINE))
    assert placed == dict.fromkeys(names, 1)
    # A process that is killed once a model is in place does not say that it has trained it.
    trained = Counter(re.findall(r"^(\S+): [\d,]+ steps, ", said, re.MULTILINE))
    assert set(trained) <= set(names) and set(trained.values()) == {1}
    found["resumed"] = said.count("resuming after step")
    return found


def test_two_hosts_train_every_model_once(make: Make) -> None:
    found = kill_and_train(make, "seed", 1, 2)
    assert found["kills"] == {"first": 4, "second": 2}
    assert found["resumed"] >= 1


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(2, 10))
def test_two_hosts_train_every_model_once_whenever_they_are_killed(make: Make, seed: int) -> None:
    found = kill_and_train(make, "seed", seed, 4)
    assert found["kills"] == {"first": 4, "second": 2}
