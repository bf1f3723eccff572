"""A disk that is full while the arena is built, and while trials are scored: a real study."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import optuna
import pytest
from disks import filled, small_disk
from optuna.trial import TrialState
from tiny import command, make_study

from optuna_demix.study import FINGERPRINT_ATTR

pytestmark = [pytest.mark.xdist_group("storages"), pytest.mark.faults]
WORKER = ("worker", "study.yaml", "--storage", "sqlite:///mix.db", "--study-name", "mix")


def test_a_full_disk_stops_an_arena_and_delays_a_trial(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", megabytes=8) as disk:
        root = disk / "study"
        make_study(root)
        url = f"sqlite:///{root / 'mix.db'}"
        optuna.create_study(storage=url, study_name="mix", directions=["maximize"] * 2)
        study = optuna.load_study(study_name="mix", storage=url)

        with filled(disk):
            refused = command("optuna-demix", *WORKER, "--n-trials", "6", cwd=root)
        assert refused.returncode == 2 and "Traceback" not in refused.stderr
        assert refused.stderr.count("error:") == 1 and "arena" in refused.stderr
        assert [file.name for file in (root / "run").glob("*.arena")] == []
        assert study.trials == [] and FINGERPRINT_ATTR not in study.user_attrs

        process = subprocess.Popen(
            [sys.executable, "-m", "optuna_demix", *WORKER, "--n-trials", "6", "--no-progress"],
            cwd=root, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        assert any("Trial 1 finished" in line for line in lines)
        before = [t.values for t in study.get_trials(states=(TrialState.COMPLETE,))]
        with filled(disk):
            # It says that it waits; only then there is room again.
            said = next((line for line in lines if "trying again" in line), "")
        rest = threading.Thread(target=process.stderr.read, daemon=True)
        rest.start()
        assert process.wait() == 0 and "full" in said
        rest.join()
        after = study.get_trials()
        assert [trial.state.name for trial in after] == ["COMPLETE"] * 6
        assert [trial.values for trial in after][: len(before)] == before
