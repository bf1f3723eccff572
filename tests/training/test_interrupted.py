from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from optuna_demix.errors import ConfigError
from optuna_demix.training import TrainingInterrupted, _place
from tests.forking import run_forked
from tests.training.samples import Make, interrupt, train, weights

torch = pytest.importorskip("torch")


KILLED = """
import os, signal, sys
from optuna_demix.config import load_study_config
from optuna_demix.training import train_study
from optuna_demix.training._pilot import Pilot

step = Pilot.step

def killed(self, number, control):
    if number == 8:
        os.kill(os.getpid(), signal.SIGKILL)
    step(self, number, control)

Pilot.step = killed
train_study(load_study_config(sys.argv[1]), device="cpu", progress=False)
"""


class TestInterruptions:
    def test_kill_9_loses_nothing_but_the_steps_since_the_checkpoint(self, make: Make) -> None:
        whole = train(make("whole"), only=["base"])["base"]
        config = make("killed")
        done = run_forked(
            ["python", "-c", KILLED, str(config.source)],
            cwd=config.source.parent,
            environment={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        )
        assert done.returncode == 128 + signal.SIGKILL, done.stderr
        assert not config.base_path.exists()
        partial = config.run_path / "models" / ".partial" / "base"
        assert sorted(p.name for p in partial.iterdir()) == [
            "checkpoint-3",
            "checkpoint-6",
            "recipe.json",
        ]
        lines: list[str] = []
        resumed = train(config, only=["base"], lines=lines)["base"]
        assert "resuming after step 6" in "\n".join(lines)
        assert weights(resumed) == weights(whole)
        assert resumed.final_loss == whole.final_loss
        assert not partial.exists()

    @pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_stops_after_the_step_and_saves(
        self, make: Make, monkeypatch: pytest.MonkeyPatch, signum: signal.Signals
    ) -> None:
        whole = train(make("whole"), only=["base"])["base"]
        config = make("stopped")
        interrupt(monkeypatch, signum, at=4)
        before = signal.getsignal(signum)
        with pytest.raises(
            TrainingInterrupted, match=f"{signum.name} after step 4 of 10 of base; the same"
        ) as caught:
            train(config, only=["base"])
        assert caught.value.signum == signum
        assert signal.getsignal(signum) is before
        monkeypatch.undo()
        lines: list[str] = []
        resumed = train(config, only=["base"], lines=lines)["base"]
        assert "resuming after step 4" in "\n".join(lines)
        assert weights(resumed) == weights(whole)

    def test_a_signal_in_the_last_step_stops_before_the_next_model(
        self, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = make()
        interrupt(monkeypatch, signal.SIGTERM, at=10)  # the components have 9 steps
        with pytest.raises(TrainingInterrupted, match="before code"):
            train(config, only=["base", "code"])
        assert (config.base_path / "training.json").exists()
        assert not config.component_path("code").exists()

    def test_a_checkpoint_cut_short_is_passed_over(
        self, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = train(make("whole"), only=["base"])["base"]
        config = make("stopped")
        interrupt(monkeypatch, signal.SIGTERM, at=8)
        with pytest.raises(TrainingInterrupted):
            train(config, only=["base"])
        monkeypatch.undo()
        last = config.run_path / "models" / ".partial" / "base" / "checkpoint-8"
        (last / "optimizer.pt").write_bytes((last / "optimizer.pt").read_bytes()[:100])
        lines: list[str] = []
        resumed = train(config, only=["base"], lines=lines)["base"]
        assert "resuming after step 6" in "\n".join(lines)
        assert weights(resumed) == weights(whole)

    def test_half_a_model_of_another_recipe_is_refused(
        self, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = make()
        interrupt(monkeypatch, signal.SIGTERM, at=4)
        with pytest.raises(TrainingInterrupted):
            train(config, only=["base"])
        monkeypatch.undo()
        changed = make(changes={"training.seed": 1})
        with pytest.raises(ConfigError, match="base: seed was 0, is 1.*--retrain base"):
            train(changed, only=["base"])
        again = train(changed, only=["base"], retrain=["base"])["base"]
        assert weights(again) == weights(
            train(make("whole", {"training.seed": 1}), only=["base"])["base"]
        )

    @pytest.mark.parametrize("name", ["weights_of", "sync_all"])
    def test_failure_to_write_leaves_nothing_behind(
        self, make: Make, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        def full(path: Path) -> None:
            raise OSError(28, "No space left on device", str(path))

        config = make(changes={"training.save_every": 100})
        monkeypatch.setattr(_place, name, full)
        with pytest.raises(ConfigError, match="No space left on device; check the path and the"):
            train(config, only=["base"])
        models = config.run_path / "models"
        assert [path.name for path in models.iterdir()] == [".partial"]
