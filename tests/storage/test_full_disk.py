"""A disk that is full while the arena is built, and while trials are scored: a real study."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import optuna
import pytest

from optuna_demix.attributes import FINGERPRINT_ATTR
from tests.storage.disks import filled, small_disk
from tests.storage.ledger import Ledger
from tests.tiny_study import command, make_study

pytestmark = pytest.mark.xdist_group("disk")  # beside the other storages
WORKER = ("worker", "study.yaml", "--storage", "sqlite:///mix.db", "--study-name", "mix")


@pytest.mark.parametrize(
    ("n_trials", "n_times"),
    [
        pytest.param(6, 1, id="short", marks=pytest.mark.slow),
        pytest.param(60, 5, id="long", marks=[pytest.mark.faults, pytest.mark.timeout(1800)]),
    ],
)
def test_a_full_disk_stops_an_arena_and_delays_a_trial(
    tmp_path: Path, record_property: Any, n_trials: int, n_times: int
) -> None:
    ledger = Ledger(record_property, workers=1)
    total = ("--n-trials", str(n_trials))
    with small_disk(tmp_path / "disk", megabytes=8) as disk:
        root = disk / "study"
        make_study(root)
        url = f"sqlite:///{root / 'mix.db'}"
        optuna.create_study(storage=url, study_name="mix", directions=["maximize"] * 2)
        study = optuna.load_study(study_name="mix", storage=url)

        ledger.fault("disk full while the arena is built", study)
        with filled(disk):
            refused = command("optuna-demix", *WORKER, *total, cwd=root)
        assert refused.returncode == 2 and "Traceback" not in refused.stderr
        assert refused.stderr.count("error:") == 1 and "arena" in refused.stderr
        assert [file.name for file in (root / "run").glob("*.arena")] == []
        assert study.trials == [] and FINGERPRINT_ATTR not in study.user_attrs

        process = subprocess.Popen(
            [sys.executable, "-m", "optuna_demix", *WORKER, *total, "--no-progress"],
            cwd=root, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        for time in range(n_times):
            number = 1 + time * n_trials // n_times
            assert any(f"Trial {number} finished" in line for line in lines)
            ledger.fault("disk full while trials are scored", study)
            with filled(disk):
                # It says that it waits; only then there is room again.
                said = next((line for line in lines if "trying again" in line), "")
            assert "full" in said
        rest = threading.Thread(target=process.stderr.read, daemon=True)
        rest.start()
        assert process.wait() == 0
        rest.join()
        ledger.settle(study, n_trials)
        assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * n_trials
