"""What a train command does while another one, on another host, trains models of the same run."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from optuna_demix.config import StudyConfig
from optuna_demix.errors import ConfigError
from optuna_demix.training import TrainedModel, _place, _turns, train_study
from optuna_demix.training._lease import Lease
from optuna_demix.training._ledger import RETRAIN_ENV, to_retrain
from optuna_demix.training._pilot import Pilot
from optuna_demix.training._record import read_record
from tests.training.samples import Make, train, weights
from tests.training.test_lease import make_old, taken

pytest.importorskip("torch")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_turns, "POLL_S", 0.01)


def lease_on(config: StudyConfig, name: str) -> Path:
    return config.run_path / "models" / ".partial" / f".{name}.lease"


def train_until(
    config: StudyConfig, said: str, then: Callable[[], None], **options: Any
) -> tuple[dict[str, TrainedModel], list[str]]:
    """Train; once a line says something, the other host does something."""
    lines: list[str] = []

    def report(line: str) -> None:
        lines.append(line)
        if said in line:
            then()

    models = train_study(config, device="cpu", report=report, **options)
    assert any(said in line for line in lines)
    return {model.name: model for model in models}, lines


def count(lines: list[str], text: str) -> int:
    return sum(text in line for line in lines)


class TestAnotherCommand:
    def test_takes_other_models_and_waits_for_those_that_are_held(self, make: Make) -> None:
        config = make()
        train(config, only=["base"])
        lease = taken(lease_on(config, "web"))
        said = "waiting for web, which process 7 of elsewhere trains"
        models, lines = train_until(config, said, lease.release)
        order = [line.split(":")[0] for line in lines if " 9 steps, " in line]
        assert order == ["code", "math", "web"]  # the other one gave it back untrained
        assert not any(models[name].skipped for name in order)

    def test_is_content_with_what_the_other_one_trains(self, make: Make) -> None:
        config = make("ours")
        theirs = train(make("theirs"), only=["base", "code"])
        shutil.copytree(theirs["base"].path, config.base_path)
        lease = taken(lease_on(config, "code"))

        def finish() -> None:
            shutil.copytree(theirs["code"].path, config.component_path("code"))
            lease.release()

        models, lines = train_until(config, "waiting for code", finish, only=["code", "math"])
        assert models["code"].skipped and not models["math"].skipped
        assert "code: was trained by another process" in lines
        assert count(lines, "code: training") == 0

    def test_waits_for_the_base_before_components(self, make: Make) -> None:
        config = make()
        lease = taken(lease_on(config, "base"))
        models, lines = train_until(config, "waiting for base", lease.release)
        assert count(lines[: lines.index("waiting for base, which process 7 of elsewhere trains")],
                     ": training") == 0  # fmt: skip
        assert list(models) == ["base", "web", "code", "math"]

    @pytest.mark.parametrize("finished", [True, False])
    def test_waits_for_a_base_that_it_is_not_to_train(self, make: Make, finished: bool) -> None:
        config = make("ours")
        base = train(make("theirs"), only=["base"])["base"]
        lease = taken(lease_on(config, "base"))

        def end() -> None:
            if finished:
                shutil.copytree(base.path, config.base_path)
            lease.release()

        if finished:
            models, _ = train_until(config, "waiting for base", end, only=["code"])
            assert list(models) == ["code"]
        else:
            with pytest.raises(ConfigError, match="the base is not trained yet"):
                train_until(config, "waiting for base", end, only=["code"])

    def test_waits_for_text_that_is_being_tokenized(self, make: Make) -> None:
        config = make()
        lease = taken(config.run_path / "cache" / ".code.lease")
        said = "waiting for the tokens of code, which process 7 of elsewhere makes"
        _, lines = train_until(config, said, lease.release, only=["base"])
        assert count(lines, "base: 10 steps, ") == 1

    def test_refuses_components_of_another_base(self, make: Make) -> None:
        """The other host has trained the base with what this one takes for another recipe."""
        config = make("ours")
        others = make("theirs", {"training.seed": 1})
        base = train(others, only=["base"])["base"]
        lease = taken(lease_on(config, "base"))

        def finish() -> None:
            shutil.copytree(base.path, config.base_path)
            lease.release()

        with pytest.raises(ConfigError, match="base: seed was 1, is 0"):
            train_until(config, "waiting for base", finish)
        assert not config.component_path("code").exists()


class TestLostLease:
    """Another host has not heard of this one for long, and takes its model over."""

    def steal(self, config: StudyConfig, name: str = "base") -> Lease:
        make_old(lease_on(config, name))
        return taken(lease_on(config, name))

    def test_nothing_more_is_written(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        whole = train(make("whole"), only=["base"])["base"]
        config = make("ours")
        partial = config.run_path / "models" / ".partial" / "base"
        stolen: list[Lease] = []
        step = Pilot.step

        def steal(pilot: Any, number: int, control: Any) -> None:
            if number == 5 and not stolen:
                stolen.append(self.steal(config))
            step(pilot, number, control)

        def give_back() -> None:
            assert [path.name for path in partial.glob("checkpoint-*")] == ["checkpoint-3"]
            assert not config.base_path.exists()
            stolen[0].release()

        monkeypatch.setattr(Pilot, "step", steal)
        said = "base: another process has taken it over"
        models, lines = train_until(config, said, give_back, only=["base"])
        assert count(lines, "base: 10 steps, ") == 1
        assert "resuming after step 3" in "\n".join(lines)
        assert weights(models["base"]) == weights(whole)

    @pytest.mark.parametrize("moment", ["before the check", "after it"])
    @pytest.mark.parametrize("again", [False, True], ids=["new", "trained again"])
    def test_a_model_of_others_is_not_replaced(
        self, make: Make, monkeypatch: pytest.MonkeyPatch, moment: str, again: bool
    ) -> None:
        """This one falls asleep just before it puts its own model in place."""
        others = train(make("theirs"), only=["base"])["base"]
        config = make("ours")
        if again:
            train(config, only=["base"])

        def other_host_finishes() -> None:
            monkeypatch.undo()
            lease = self.steal(config)
            shutil.rmtree(config.base_path, ignore_errors=True)
            shutil.copytree(others.path, config.base_path)
            lease.release()

        if moment == "before the check":
            sync = _place.sync_all

            def sync_all(path: Path) -> None:
                sync(path)
                other_host_finishes()

            monkeypatch.setattr(_place, "sync_all", sync_all)
        else:
            check = Lease.check

            def checked(lease: Lease) -> None:
                check(lease)
                if list(config.base_path.parent.glob(".base.*.new")):
                    other_host_finishes()

            monkeypatch.setattr(Lease, "check", checked)
        retrain = ["base"] if again else []
        base = train(config, only=["base"], retrain=retrain)["base"]
        assert base.skipped
        assert read_record(config.base_path) == read_record(others.path)
        names = sorted(path.name for path in config.base_path.parent.iterdir())
        assert names == [".partial", "base"]

    def test_a_folder_that_is_suddenly_there_is_not_replaced(
        self, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It comes after the last look, in the moment of the rename."""
        others = train(make("theirs"), only=["base"])["base"]
        config = make("ours")
        read = _place.read_record

        def read_then(path: Path) -> dict[str, Any] | None:
            record = read(path)
            lease = self.steal(config)
            shutil.copytree(others.path, config.base_path)
            lease.release()
            return record

        monkeypatch.setattr(_place, "read_record", read_then)
        assert train(config, only=["base"])["base"].skipped
        assert read_record(config.base_path) == read_record(others.path)

    def test_checkpoints_that_others_dropped_are_no_error(
        self, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = make()
        saved = Pilot.saved

        def dropped(pilot: Any, checkpoint: Path) -> None:
            monkeypatch.undo()
            lease = self.steal(config)
            shutil.rmtree(checkpoint)
            lease.release()
            saved(pilot, checkpoint)

        monkeypatch.setattr(Pilot, "saved", dropped)
        lines: list[str] = []
        train(config, only=["base"], lines=lines)
        assert count(lines, "base: 10 steps, ") == 1


class TestTrainedAgain:
    def test_is_what_was_there_when_the_command_began(
        self, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Processes of one command get the same list; the last of them finds its work done."""
        config = make()
        train(config, only=["base"])
        run: Any = type("Run", (), {"name": "base", "path": config.base_path})
        begun = json.dumps(to_retrain([run], ["base"]))
        monkeypatch.setenv(RETRAIN_ENV, begun)
        first = train(config, only=["base"], retrain=["base"])["base"]
        second = train(config, only=["base"], retrain=["base"])["base"]
        assert not first.skipped and second.skipped
        monkeypatch.delenv(RETRAIN_ENV)
        assert not train(config, only=["base"], retrain=["base"])["base"].skipped


def test_leftovers_of_killed_processes_are_deleted(make: Make) -> None:
    config = make()
    models = config.run_path / "models"
    for name in (".base.0123456789abcdef.new", ".base.0123456789abcdef.old", ".base.mine.new"):
        (models / name).mkdir(parents=True)
    train(config, only=["base"])
    assert sorted(os.listdir(models)) == [".base.mine.new", ".partial", "base"]


def test_checkpoints_of_a_model_that_came_are_deleted(make: Make) -> None:
    """Its process was killed after the model was in place."""
    config = make("ours")
    base = train(make("theirs"), only=["base"])["base"]
    partial = config.run_path / "models" / ".partial" / "base"
    partial.mkdir(parents=True)
    lease = taken(lease_on(config, "base"))
    needs = _turns.Standing.needs
    looks: list[bool] = []

    def came_late(standing: Any, run: Any) -> bool:
        looks.append(needs(standing, run))
        if len(looks) == 1:
            shutil.copytree(base.path, config.base_path)
            lease.release()
        return looks[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_turns.Standing, "needs", came_late)
        assert train(config, only=["base"])["base"].skipped
    assert looks == [True, False] and not partial.exists()
