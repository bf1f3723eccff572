"""Learning rates over a run, and the mean of snapshots that may stand for their decay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from optuna_demix.errors import ConfigError
from optuna_demix.training import TrainingInterrupted, _one_model, _trainer
from tests.training.samples import Make, interrupt, record, train, weights

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

AVERAGE = {
    "training.base.schedule": "wsd",
    "training.base.decay_ratio": 0.6,
    "training.base.average": 3,
}


def rates(make: Make, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]) -> list[float]:
    """The learning rate of each of ten steps, as a share of the peak, as Trainer sets it."""
    found: list[float] = []
    made = _one_model.make_trainer

    def watched(*arguments: Any) -> Any:
        trainer = made(*arguments)

        class Watch(transformers.TrainerCallback):  # type: ignore[name-defined,misc]
            def on_pre_optimizer_step(self, *_: Any, **kwargs: Any) -> None:
                found.append(kwargs["optimizer"].param_groups[0]["lr"] / 0.003)

        trainer.add_callback(Watch())
        return trainer

    monkeypatch.setattr(_one_model, "make_trainer", watched)
    fields = {f"training.base.{name}": value for name, value in changes.items()}
    train(make(changes=fields), only=["base"])
    return found


class TestRates:
    def test_wsd_warms_up_stays_and_decays(
        self, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        changes = {"schedule": "wsd", "warmup_ratio": 0.2, "decay_ratio": 0.4}
        found = rates(make, monkeypatch, changes)
        decay = [0.2 + 0.8 * (1 - (i / 4) ** 0.5) for i in (1, 2, 3)]
        np.testing.assert_allclose(found, [0.0, 0.5, 1, 1, 1, 1, 1, *decay])

    @pytest.mark.parametrize("changes", [{"decay_ratio": 0.0}, {"average": 2}])
    def test_the_peak_is_kept_where_nothing_decays(
        self, make: Make, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
    ) -> None:
        found = rates(make, monkeypatch, {"schedule": "wsd", "warmup_ratio": 0.1, **changes})
        np.testing.assert_allclose(found, [0.0] + [1.0] * 9)

    def test_cosine_ends_at_its_ratio(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        found = rates(make, monkeypatch, {"warmup_ratio": 0.0, "final_lr_ratio": 0.5})
        assert found[0] == pytest.approx(1.0) and found[5] == pytest.approx(0.75)
        assert 0.5 < found[-1] < 0.52


class TestMeans:
    def test_a_model_is_the_mean_of_snapshots_over_the_last_steps(
        self, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from safetensors.torch import load_file

        seen = {}
        keep = _trainer.keep_snapshot

        def watched(file: Path, model: Any) -> None:
            keep(file, model)
            seen[int(file.stem)] = load_file(file)

        monkeypatch.setattr(_trainer, "keep_snapshot", watched)
        base = train(make(changes=AVERAGE), only=["base"])["base"]
        assert list(seen) == [6, 8, 10] == record(base)["averaged_steps"]
        values = load_file(base.path / "model.safetensors")
        assert values
        for name, value in values.items():
            mean = sum(snapshot[name] for snapshot in seen.values()) / 3  # type: ignore[operator]
            torch.testing.assert_close(value, mean, rtol=0, atol=1e-7)
            assert not torch.equal(value, seen[10][name])
        assert not list((base.path.parent / ".partial").glob("base"))

    def test_a_run_goes_on_with_the_snapshots_it_has(
        self, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = train(make("whole", AVERAGE), only=["base"])["base"]
        config = make("stopped", AVERAGE)
        interrupt(monkeypatch, 15, at=9)
        with pytest.raises(TrainingInterrupted):
            train(config, only=["base"])
        monkeypatch.undo()
        partial = config.run_path / "models" / ".partial" / "base"
        (partial / "snapshots" / "8.safetensors").write_bytes(b"")  # since the checkpoint after 6
        lines: list[str] = []
        resumed = train(config, only=["base"], lines=lines)["base"]
        assert "resuming after step 6" in "\n".join(lines)
        assert weights(resumed) == weights(whole)

    def test_components_keep_the_dtype_of_their_base(self, make: Make) -> None:
        """The mean is float32; the model is cast to what the base has, at the end."""
        from safetensors.torch import load_file, save_file

        changes = {name.replace("base", "component"): value for name, value in AVERAGE.items()}
        config = make(changes=changes)
        base = train(config, only=["base"])["base"]
        file = base.path / "model.safetensors"
        save_file(
            {name: t.bfloat16() for name, t in load_file(file).items()}, file, {"format": "pt"}
        )
        (base.path / "training.json").unlink()
        settings = (base.path / "config.json").read_text()
        (base.path / "config.json").write_text(settings.replace("float32", "bfloat16"))
        existing = make(changes={**changes, "training.base": None, "base": str(base.path)})
        web = train(existing, only=["web"])["web"]
        dtypes = {t.dtype for t in load_file(web.path / "model.safetensors").values()}
        assert dtypes == {torch.bfloat16}


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"average": 3}, "'average' belongs to 'schedule: wsd'"),
            ({"decay_ratio": 0.1}, "'decay_ratio' belongs to 'schedule: wsd'"),
            ({"schedule": "wsd", "average": 1}, "training.base.average"),
            ({"schedule": "wsd", "warmup_ratio": 0.9}, "sum to more than 1; lower one"),
            ({"schedule": "linear"}, "training.base.schedule"),
        ],
    )
    def test_fields_that_do_not_fit(
        self, make: Make, changes: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(ConfigError, match=message):
            make(changes={f"training.base.{name}": value for name, value in changes.items()})

    def test_more_snapshots_than_steps(self, make: Make) -> None:
        config = make(changes={**AVERAGE, "training.base.average": 7})
        with pytest.raises(ConfigError, match="training.base.average: 7 snapshots .* the 6 of 10"):
            train(config, only=["base"])
        assert not (config.run_path / "models").exists()

    def test_a_changed_schedule_is_another_recipe(self, make: Make) -> None:
        train(make(), only=["base"])
        with pytest.raises(ConfigError, match="schedule was .*cosine.*, is .*wsd"):
            train(make(changes=AVERAGE), only=["base"])
