"""The scripts of a plan really run; for transformers the whole way."""

from __future__ import annotations

import json
import runpy
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from optuna_demix.training._plan import plan_models
from optuna_demix.training._schedule import own_rate
from optuna_demix.training.trainers.scripts import hf_train
from tests.training.samples import Make
from tests.training.trainers.samples import plan

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Run a script of a plan in this process; returns its exit status."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))

    def run_script(script: Path, *arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", [str(script), *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(script), run_name="__main__")
        return int(end.value.code or 0)

    return run_script


def words_of(script: Path, name: str) -> list[str]:
    """Arguments that a run's shell script gives another one."""
    import shlex

    (line,) = (line for line in script.read_text().splitlines() if f" {name} " in line)
    return shlex.split(line.partition(f" {name} ")[2])


def on_cpu(settings: Path, **changes: Any) -> None:
    content = json.loads(settings.read_text())
    content["arguments"] |= {"use_cpu": True, "disable_tqdm": True, **changes}
    settings.write_text(json.dumps(content))


def test_a_base_is_made_trained_and_put_in_its_place(make: Make, run: Any) -> None:
    config = make()
    folder = plan(config, "hf")
    script = folder / "base.sh"
    (folder / "out" / "base").mkdir(parents=True)
    config.base_path.parent.mkdir(parents=True)
    assert run(folder / "start.py", folder / "model", *words_of(script, "start.py")[1:]) == 0
    on_cpu(folder / "base.json", max_steps=3)  # as if it was stopped there
    assert run(folder / "train.py", folder / "base.json", folder / "out" / "base" / "hf") == 0
    on_cpu(folder / "base.json", max_steps=10)
    assert run(folder / "train.py", folder / "base.json", folder / "out" / "base" / "hf") == 0
    assert run(folder / "finish.py", *words_of(script, "finish.py")) == 0
    state = json.loads((config.base_path / "trainer_state.json").read_text())
    assert state["global_step"] == 10
    steps = [entry["step"] for entry in state["log_history"] if "loss" in entry]
    assert steps == list(range(1, 11))  # the second run went on from the first
    model = transformers.AutoModelForCausalLM.from_pretrained(config.base_path)
    start = transformers.AutoModelForCausalLM.from_pretrained(folder / "start")
    assert model.dtype == torch.float32
    assert not torch.equal(model.lm_head.weight, start.lm_head.weight)
    assert transformers.AutoTokenizer.from_pretrained(config.base_path).eos_token == "<eos>"
    left = {file.name for file in config.base_path.parent.iterdir()}
    assert left == {"base"}  # nothing beside it


def test_another_model_is_not_put_in_place(
    make: Make, run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make()
    folder = plan(config, "hf")
    config.base_path.parent.mkdir(parents=True)
    words = words_of(folder / "base.sh", "finish.py")
    assert run(folder / "finish.py", *words) == 1
    assert "holds no .safetensors file" in capsys.readouterr().err
    run(folder / "start.py", folder / "model", *words_of(folder / "base.sh", "start.py")[1:])
    weights = Path(words[0])
    shutil.copytree(folder / "start", weights)
    from safetensors.torch import load_file, save_file

    tensors = load_file(weights / "model.safetensors")
    tensors.pop("model.norm.weight")
    save_file(tensors, weights / "model.safetensors", metadata={"format": "pt"})
    assert run(folder / "finish.py", *words) == 1
    assert "missing keys: ['model.norm.weight']" in capsys.readouterr().err
    assert not config.base_path.exists()


def test_a_late_decay_is_that_of_train(make: Make) -> None:
    changes = {"training.component.schedule": "wsd", "training.component.decay_ratio": 0.5}
    config = make(changes=changes)
    content = json.loads((plan(config, "hf") / "component_web.json").read_text())
    assert config.training is not None
    run = plan_models(config, config.training, 0, None).runs[1]
    ours = own_rate(run)
    assert ours is not None
    rates = [hf_train.late_decay(step, **content["late_decay"]) for step in range(run.steps + 1)]
    assert rates == pytest.approx([ours(step) for step in range(run.steps + 1)])
    assert rates[0] == 0.0 and rates[-1] == pytest.approx(0.2)


def test_blocks_come_in_the_proportions_of_their_shares() -> None:
    turns = hf_train.turns([0.609, 0.313, 0.078])
    drawn: Counter[int] = Counter()
    for n in range(1, 1001):
        drawn[next(turns)] += 1
        for source, share in enumerate((0.609, 0.313, 0.078)):
            assert abs(drawn[source] - n * share) < 1.0


def test_texts_are_packed_without_a_gap() -> None:
    class Letters:
        eos_token_id = 0

        def __call__(self, texts: list[str], **options: bool) -> dict[str, list[list[int]]]:
            return {"input_ids": [[ord(letter) for letter in text] for text in texts]}

    texts = iter(["ab", "c", "defg"] * 200)
    blocks = hf_train.blocks_of(texts, Letters(), 4)
    flat = [token for _, block in zip(range(300), blocks, strict=False) for token in block]
    expected = [*b"ab", 0, *b"c", 0, *b"defg", 0]
    assert flat == (expected * 200)[: len(flat)]
