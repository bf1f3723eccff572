from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from optuna_demix import training
from optuna_demix.config import StudyConfig, load_study_config
from optuna_demix.errors import ConfigError, ConstraintError, DemixError
from optuna_demix.training import TrainedModel, TrainingInterrupted, train_study

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

WORDS = {"web": "the of and to in", "code": "def return class if", "math": "one two three four"}
SEQUENCE, BATCH = 8, 4
STUDY: dict[str, Any] = {
    "run_dir": "run",
    "datasets": {name: {"files": [f"{name}.jsonl"]} for name in WORDS},
    "components": list(WORDS),
    "general": {"dataset": "web", "share": 0.25},
    "capabilities": {"all": [{"task": "some_task", "metric": "acc"}]},
    "training": {
        "tokenizer": "tokenizer",
        "model": {
            "model_type": "llama",
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "max_position_embeddings": 16,
            "tie_word_embeddings": True,
        },
        "sequence_length": SEQUENCE,
        "batch_size": BATCH,
        "save_every": 3,
        "base": {"tokens": 10 * SEQUENCE * BATCH, "learning_rate": 0.003},
        "component": {"tokens": 9 * SEQUENCE * BATCH, "learning_rate": 0.001},
    },
}


@pytest.fixture(scope="session")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three datasets of 40 short documents, and a tokenizer that knows their words."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder = tmp_path_factory.mktemp("corpora")
    rng = random.Random(0)
    for name, words in WORDS.items():
        documents = [" ".join(rng.choices(words.split(), k=rng.randint(3, 9))) for _ in range(40)]
        lines = [json.dumps({"text": text}) for text in documents]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    known = ["<eos>", "<unk>", *" ".join(WORDS.values()).split()]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(known)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<eos>", unk_token="<unk>"
    ).save_pretrained(folder / "tokenizer")
    return folder


Make = Callable[..., StudyConfig]


@pytest.fixture
def make(corpora: Path, tmp_path: Path) -> Make:
    """Write a study: ``make("folder", {"training.seed": 1, "training.base": None})``."""

    def write(folder: str = "study", changes: Mapping[str, Any] | None = None) -> StudyConfig:
        home = tmp_path / folder
        if not home.exists():
            home.mkdir()
            for name in WORDS:
                (home / f"{name}.jsonl").write_bytes((corpora / f"{name}.jsonl").read_bytes())
            (home / "tokenizer").symlink_to(corpora / "tokenizer")
        study = json.loads(json.dumps(STUDY))
        for field, value in (changes or {}).items():
            *parents, last = field.split(".")
            place = study
            for parent in parents:
                place = place[parent]
            if value is None:
                place.pop(last, None)
            else:
                place[last] = value
        (home / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
        return load_study_config(home / "study.yaml")

    return write


def train(config: StudyConfig, **options: Any) -> dict[str, TrainedModel]:
    lines: list[str] = options.pop("lines", [])
    models = train_study(config, device="cpu", report=lines.append, **options)
    return {model.name: model for model in models}


def weights(model: TrainedModel | Path) -> bytes:
    path = model.path if isinstance(model, TrainedModel) else model
    return (path / "model.safetensors").read_bytes()


def record(model: TrainedModel) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((model.path / "training.json").read_text())
    return value


class TestOrder:
    @given(
        st.lists(st.floats(0.0, 1.0), min_size=1, max_size=12).filter(lambda x: sum(x) > 1e-3),
        st.integers(1, 10_000),
    )
    def test_parts_sum_and_are_off_by_less_than_one(self, raw: list[float], total: int) -> None:
        shares = np.array(raw) / sum(raw)
        parts = training._apportion(shares, total)
        assert parts.sum() == total
        assert np.all(np.abs(parts - shares * total) < 1.0)

    def run(self, name: str = "code", steps: int = 10) -> training._Run:
        budget = load_budget()
        section = "training.base" if name == "base" else "training.component"
        return training._Run(name, section, Path(name), budget, {"web": 0.3, "code": 0.7}, steps)

    def test_every_block_is_seen_before_one_is_repeated(self) -> None:
        order = training._order(self.run(steps=10), [100, 5], seed=0, batch_size=4)
        seen = order.rows[order.datasets == 1]  # 28 blocks of 5
        for epoch in range(5):
            assert sorted(seen[5 * epoch : 5 * epoch + 5]) == [0, 1, 2, 3, 4]
        assert len({tuple(seen[5 * e : 5 * e + 5]) for e in range(5)}) > 1  # shuffled anew
        assert len(set(order.rows[order.datasets == 0])) == 12  # 100 blocks: none twice

    def test_order_depends_on_the_seed_and_not_on_the_name(self) -> None:
        def rows(name: str, seed: int) -> list[int]:
            order = training._order(self.run(name), [50, 50], seed=seed, batch_size=4)
            return (order.rows + 1000 * order.datasets).tolist()

        assert rows("code", 0) == rows("math", 0)
        assert rows("code", 0) != rows("code", 1)
        assert rows("code", 0) != rows("base", 0)


def load_budget() -> Any:
    from optuna_demix.config import BudgetConfig

    return BudgetConfig(tokens=1000, learning_rate=0.1)


class TestTrain:
    def test_components_get_their_shares_exactly(self, make: Make) -> None:
        config = make()
        models = train(config)
        assert list(models) == ["base", "web", "code", "math"]
        blocks = 9 * BATCH
        for name, asked in [
            ("web", {"web": 1.0}),
            ("code", {"code": 0.75, "web": 0.25}),
            ("math", {"math": 0.75, "web": 0.25}),
        ]:
            kept = record(models[name])
            assert {d: facts["share_asked"] for d, facts in kept["data"].items()} == asked
            for dataset, facts in kept["data"].items():
                assert facts["blocks"] == asked[dataset] * blocks
                assert facts["tokens"] == facts["blocks"] * SEQUENCE
                tokens = np.load(cache_of(config, dataset), mmap_mode="r")
                assert facts["epochs"] == facts["blocks"] / (len(tokens) // SEQUENCE)
            assert kept["steps"] == models[name].steps == 9
            assert kept["tokens"] == 9 * BATCH * SEQUENCE
            assert models[name].data_shares == pytest.approx(asked)
        # The prior is uniform: its data shares are the mean of the compositions.
        assert record(models["base"])["data"]["web"]["share_asked"] == pytest.approx(0.5)

    def test_record_says_how_a_model_was_made(self, make: Make) -> None:
        config = make(changes={"training.seed": 7})
        kept = record(train(config, only=["base"])["base"])
        assert kept["seed"] == 7
        assert kept["versions"]["torch"] == torch.__version__
        assert kept["versions"]["transformers"] == transformers.__version__
        assert kept["recipe"]["learning_rate"] == 0.003
        assert kept["final_loss"] > 0
        assert kept["tokens_per_second"] == pytest.approx(kept["tokens"] / kept["seconds"])

    def test_models_are_complete_checkpoints_without_pickle(self, make: Make) -> None:
        config = make()
        models = train(config, only=["base", "code"])
        folder = config.run_path / "models"
        assert sorted(path.name for path in folder.iterdir()) == [".partial", "base", "code"]
        assert not [p for p in folder.rglob("*") if p.suffix in (".bin", ".pt", ".pth", ".pkl")]
        for model in models.values():
            for name in ("tokenizer.json", "tokenizer_config.json"):
                source = config.resolve("tokenizer") / name
                assert (model.path / name).read_bytes() == source.read_bytes()
            loaded = transformers.AutoModelForCausalLM.from_pretrained(model.path)
            assert loaded.config.use_cache
            assert loaded.config.eos_token_id == 0
            assert loaded.config.vocab_size == 15
        assert weights(models["base"]) != weights(models["code"])

    def test_text_becomes_blocks_with_eos_between_documents(
        self, make: Make, corpora: Path
    ) -> None:
        config = make()
        train(config, only=["base"])
        tokens = np.load(cache_of(config, "code"))
        tokenizer = transformers.AutoTokenizer.from_pretrained(corpora / "tokenizer")
        expected: list[int] = []
        for line in (corpora / "code.jsonl").read_text().splitlines():
            expected += [*tokenizer.encode(json.loads(line)["text"]), 0]
        assert tokens.tolist() == expected

    def test_text_is_tokenised_once(self, make: Make) -> None:
        config = make()
        lines: list[str] = []
        train(config, only=["base"], lines=lines)
        assert [line for line in lines if "tokenising" in line]
        lines.clear()
        train(config, lines=lines)
        assert not [line for line in lines if "tokenising" in line]

    def test_txt_files_are_one_document_each(self, make: Make) -> None:
        config = make()
        home = config.source.parent
        for i, text in enumerate(["def return " * 40, "class if " * 40]):
            (home / f"code{i}.txt").write_text(text)
        config = make(changes={"datasets.code.files": ["code*.txt"]})
        train(config, only=["base"])
        tokens = np.load(cache_of(config, "code"))
        assert np.flatnonzero(tokens == 0).tolist() == [80, 161]

    def test_same_seed_gives_the_same_weights(self, make: Make) -> None:
        first = train(make("first"), only=["base", "code"])
        again = train(make("again"), only=["base", "code"])
        other = train(make("other", {"training.seed": 1}), only=["base", "code"])
        for name in ("base", "code"):
            assert weights(first[name]) == weights(again[name])
            assert weights(first[name]) != weights(other[name])

    def test_learning_rate_warms_up_and_ends_at_its_floor(
        self, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rates: list[float] = []
        step = training._Pilot.step

        def noted(self: Any, number: int, control: Any) -> None:
            rates.append(trainers[0].lr_scheduler.get_last_lr()[0])
            step(self, number, control)

        trainers: list[Any] = []
        build = training._trainer

        def kept(*arguments: Any) -> Any:
            trainers.append(build(*arguments))
            return trainers[-1]

        monkeypatch.setattr(training._Pilot, "step", noted)
        monkeypatch.setattr(training, "_trainer", kept)
        config = make(changes={"training.base.warmup_ratio": 0.2})
        train(config, only=["base"])
        assert rates[:2] == pytest.approx([0.0015, 0.003])  # 2 of 10 steps
        assert all(a > b for a, b in zip(rates[1:], rates[2:], strict=False))
        assert rates[-1] == pytest.approx(0.2 * 0.003)

    def test_other_architectures_train(self, make: Make) -> None:
        for kind in ("gpt2", "gpt_neox"):
            model = {
                "model_type": kind,
                "hidden_size": 16,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "max_position_embeddings": 16,
            }
            if kind == "gpt_neox":
                model["intermediate_size"] = 32
            config = make(kind, {"training.model": model})
            assert list(train(config, only=["base", "code"])) == ["base", "code"]


def cache_of(config: StudyConfig, dataset: str) -> Path:
    job = training._Job(
        config,
        config.training,  # type: ignore[arg-type]
        training._Vocabulary.open(config, config.training),  # type: ignore[arg-type]
        "cpu",
        lambda line: None,
    )
    blocks: Any = training._blocks(job, training._corpus(config, dataset))
    return Path(blocks.filename)


class TestExistingBase:
    CHANGES = {"training.base": None, "training.model": None, "base": "given"}

    def save_base(self, config: StudyConfig, dtype: Any, spoilt: bool = False) -> None:
        settings = {k: v for k, v in STUDY["training"]["model"].items() if k != "model_type"}
        torch.manual_seed(0)
        model = transformers.LlamaForCausalLM(
            transformers.LlamaConfig(**settings, vocab_size=15, eos_token_id=0, bos_token_id=None)
        )
        if spoilt:
            torch.nn.init.constant_(model.model.norm.weight, float("nan"))
        model.to(dtype).save_pretrained(config.base_path)

    def test_components_keep_the_dtype_of_the_base(self, make: Make) -> None:
        config = make(changes=self.CHANGES)
        self.save_base(config, torch.bfloat16)
        code = train(config, only=["code"])["code"]
        loaded = transformers.AutoModelForCausalLM.from_pretrained(code.path, dtype="auto")
        assert {p.dtype for p in loaded.parameters()} == {torch.bfloat16}
        assert json.loads((code.path / "config.json").read_text())["dtype"] == "bfloat16"

    def test_another_base_is_another_recipe(self, make: Make) -> None:
        config = make(changes=self.CHANGES)
        self.save_base(config, torch.float32)
        train(config, only=["code"])
        self.save_base(config, torch.bfloat16)
        with pytest.raises(ConfigError, match="code: the base is another; .*--retrain code"):
            train(config, only=["code"])

    def test_loss_that_is_not_finite_stops_training(self, make: Make) -> None:
        config = make(changes=self.CHANGES)
        self.save_base(config, torch.float32, spoilt=True)
        with pytest.raises(ConfigError, match="learning_rate: the loss of code became nan"):
            train(config, only=["code"])
        assert not config.component_path("code").exists()

    def test_missing_base_is_refused(self, make: Make) -> None:
        with pytest.raises(ConfigError, match="base: there is no base checkpoint in .*given"):
            train(make(changes=self.CHANGES))

    def test_base_without_safetensors_is_refused(self, make: Make) -> None:
        config = make(changes=self.CHANGES)
        config.base_path.mkdir()
        (config.base_path / "config.json").write_text("{}")
        with pytest.raises(ConfigError, match="holds no .safetensors weights"):
            train(config)

    def test_vocabulary_of_the_base_must_hold_the_tokens(self, make: Make) -> None:
        config = make(changes=self.CHANGES)
        self.save_base(config, torch.float32)
        settings = json.loads((config.base_path / "config.json").read_text())
        (config.base_path / "config.json").write_text(json.dumps({**settings, "vocab_size": 9}))
        with pytest.raises(ConfigError, match="given"):
            train(config)


class TestFinishedModels:
    def test_are_skipped(self, make: Make) -> None:
        config = make()
        first = train(config)
        before = {name: (model.path / "model.safetensors").stat() for name, model in first.items()}
        lines: list[str] = []
        again = train(config, lines=lines)
        assert all(model.skipped for model in again.values())
        assert not any(model.skipped for model in first.values())
        for name, model in again.items():
            assert (model.path / "model.safetensors").stat() == before[name]
            assert dataclasses.replace(model, skipped=False) == first[name]
        assert lines == [f"{name}: is there already" for name in first]

    def test_changed_recipe_is_refused_until_retrained(self, make: Make) -> None:
        first = train(make(), only=["base", "code", "math"])
        kept = weights(first["code"])
        changed = make(changes={"training.component.learning_rate": 0.002})
        with pytest.raises(ConfigError) as caught:
            train(changed, only=["base", "code", "math"])
        message = str(caught.value)
        assert "code: learning_rate was 0.001, is 0.002" in message
        assert "--retrain code --retrain math" in message and "base" not in message
        assert weights(first["code"]) == kept
        again = train(changed, only=["base", "code", "math"], retrain=["code", "math"])
        assert [model.skipped for model in again.values()] == [True, False, False]
        assert weights(again["code"]) != kept
        assert all(model.skipped for model in train(changed, only=["base", "code"]).values())

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"training.seed": 1}, "seed was 0, is 1"),
            ({"training.base.tokens": 2000}, "tokens was 320, is 2000"),
            ({"training.base.composition": {"web": 1.0}}, "share of web was 0.5, is 1.0"),
            ({"training.model.hidden_size": 32}, "model was"),
        ],
    )
    def test_what_changed_is_named(self, make: Make, changes: dict[str, Any], said: str) -> None:
        train(make(), only=["base"])
        with pytest.raises(ConfigError) as caught:
            train(make(changes=changes), only=["base"])
        assert said in str(caught.value)
        assert "--retrain base" in str(caught.value)

    def test_changed_text_is_refused(self, make: Make) -> None:
        config = make()
        train(config, only=["base", "code", "math"])
        with (config.source.parent / "code.jsonl").open("a") as stream:
            stream.write('{"text": "def"}\n')
        with pytest.raises(ConfigError, match="code: the text of code is another"):
            train(config, only=["code", "math"])

    def test_components_of_a_base_trained_again_are_refused(self, make: Make) -> None:
        train(make(), only=["base", "code"])
        changed = make(changes={"training.base.learning_rate": 0.01})
        with pytest.raises(ConfigError, match="code: the base is another; .*--retrain code"):
            train(changed, only=["base", "code"], retrain=["base"])
        again = train(changed, only=["base", "code"], retrain=["code"])
        assert [model.skipped for model in again.values()] == [True, False]

    def test_a_base_trained_again_to_the_same_weights_keeps_its_components(
        self, make: Make
    ) -> None:
        config = make()
        train(config, only=["base", "code"])
        again = train(config, only=["base", "code"], retrain=["base"])
        assert [model.skipped for model in again.values()] == [False, True]

    def test_damaged_weights_are_refused(self, make: Make) -> None:
        config = make()
        base = train(config, only=["base"])["base"]
        (base.path / "model.safetensors").write_bytes(weights(base)[:-1])
        with pytest.raises(ConfigError, match="model.safetensors is missing or cut short"):
            train(config, only=["base"])

    def test_a_foreign_directory_is_left_alone(self, make: Make) -> None:
        config = make()
        (config.base_path).mkdir(parents=True)
        (config.base_path / "mine").write_text("precious")
        for retrain in ([], ["base"]):
            with pytest.raises(ConfigError, match="was not made by train"):
                train(config, only=["base"], retrain=retrain)
        assert (config.base_path / "mine").read_text() == "precious"

    def test_components_given_by_hub_or_path_are_not_trained(self, make: Make) -> None:
        components = {"web": {}, "code": {"hub": "some/model"}, "math": {"path": "given"}}
        config = make(changes={"components": components})
        (config.source.parent / "given").mkdir()
        assert list(train(config)) == ["base", "web"]
        with pytest.raises(ConfigError, match="components.code: is given by hub or path"):
            train(config, only=["code"])


KILLED = """
import os, signal, sys
from optuna_demix import training
from optuna_demix.config import load_study_config

step = training._Pilot.step

def killed(self, number, control):
    if number == 8:
        os.kill(os.getpid(), signal.SIGKILL)
    step(self, number, control)

training._Pilot.step = killed
training.train_study(load_study_config(sys.argv[1]), device="cpu", progress=False)
"""


class TestInterruptions:
    def test_kill_9_loses_nothing_but_the_steps_since_the_checkpoint(self, make: Make) -> None:
        whole = train(make("whole"), only=["base"])["base"]
        config = make("killed")
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(config.source)],
            env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
            capture_output=True,
        )
        assert done.returncode == -signal.SIGKILL, done.stderr.decode()
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
        self.interrupt(monkeypatch, signum, at=4)
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

    @staticmethod
    def interrupt(monkeypatch: pytest.MonkeyPatch, signum: int, at: int) -> None:
        step = training._Pilot.step

        def stopped(self: Any, number: int, control: Any) -> None:
            if number == at:
                os.kill(os.getpid(), signum)
            step(self, number, control)

        monkeypatch.setattr(training._Pilot, "step", stopped)

    def test_a_signal_in_the_last_step_stops_before_the_next_model(
        self, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = make()
        self.interrupt(monkeypatch, signal.SIGTERM, at=10)  # the components have 9 steps
        with pytest.raises(TrainingInterrupted, match="before code"):
            train(config, only=["base", "code"])
        assert (config.base_path / "training.json").exists()
        assert not config.component_path("code").exists()

    def test_a_checkpoint_cut_short_is_passed_over(
        self, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = train(make("whole"), only=["base"])["base"]
        config = make("stopped")
        self.interrupt(monkeypatch, signal.SIGTERM, at=8)
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
        self.interrupt(monkeypatch, signal.SIGTERM, at=4)
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

    def test_a_model_in_other_hands_is_not_touched(self, make: Make) -> None:
        from filelock import FileLock

        config = make()
        lock = config.run_path / "models" / ".partial" / "base.lock"
        lock.parent.mkdir(parents=True)
        with (
            FileLock(lock),
            pytest.raises(DemixError, match="base is being trained by another process"),
        ):
            train(config, only=["base"])

    @pytest.mark.parametrize("name", ["_weights_of", "_sync"])
    def test_failure_to_write_leaves_nothing_behind(
        self, make: Make, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        def full(path: Path) -> None:
            raise OSError(28, "No space left on device", str(path))

        config = make(changes={"training.save_every": 100})
        monkeypatch.setattr(training, name, full)
        with pytest.raises(ConfigError, match="No space left on device; check the path and the"):
            train(config, only=["base"])
        models = config.run_path / "models"
        assert [path.name for path in models.iterdir()] == [".partial"]


class TestReferences:
    def test_sampled_mixtures_are_recorded(self, make: Make) -> None:
        config = make()
        models = train(config, references=3)
        names = [f"references/{i}" for i in range(3)]
        assert list(models)[-3:] == names
        composition = np.array([[1, 0, 0], [0.25, 0.75, 0], [0.25, 0, 0.75]])
        for name in names:
            model = models[name]
            assert model.path == config.run_path / "models" / name
            kept = record(model)
            assert sum(kept["merge_weights"].values()) == pytest.approx(1.0)
            asked = {d: facts["share_asked"] for d, facts in kept["data"].items()}
            assert sum(asked.values()) == pytest.approx(1.0)
            assert sum(model.data_shares.values()) == pytest.approx(1.0)
            expected = np.array(list(kept["merge_weights"].values())) @ composition
            for share, dataset in zip(expected, WORDS, strict=True):
                assert asked.get(dataset, 0.0) == pytest.approx(share)
                assert abs(model.data_shares.get(dataset, 0.0) - share) <= 1 / (9 * BATCH)
        assert len({tuple(models[name].data_shares.values()) for name in names}) == 3

    def test_more_references_keep_the_first(self, make: Make) -> None:
        config = make()
        train(config, references=1)
        models = train(config, references=2)
        assert models["references/0"].skipped and not models["references/1"].skipped

    def test_a_reference_on_a_components_data_is_that_component(self, make: Make) -> None:
        models = train(make(), reference_mixtures=[{"code": 0.75, "web": 0.25}])
        assert weights(models["references/0"]) == weights(models["code"])
        assert record(models["references/0"])["merge_weights"] is None

    def test_reference_has_its_own_budget(self, make: Make) -> None:
        step = SEQUENCE * BATCH
        budget = {"tokens": 5 * step, "learning_rate": 0.001}
        config = make(changes={"training.reference": budget})
        models = train(config, references=1, only=["base", "references"])
        assert list(models) == ["base", "references/0"]
        assert models["references/0"].steps == 5

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"reference_mixtures": [{"web": 0.5}]}, "reference 0: .* sum to 1, not to 0.5"),
            ({"reference_mixtures": [{"webb": 1.0}]}, "no dataset 'webb'; did you mean 'web'"),
            (
                {"reference_mixtures": [{"web": 1.5, "code": -0.5}]},
                "the share of 'code' must be a number from 0 to 1, got -0.5",
            ),
            ({"reference_mixtures": [{"web": float("nan")}]}, "got nan"),
            ({"references": -1}, "must not be negative"),
            ({"references": 1, "reference_mixtures": []}, "not both"),
        ],
    )
    def test_bad_mixtures_are_refused(
        self, make: Make, options: dict[str, Any], message: str
    ) -> None:
        config = make()
        with pytest.raises(DemixError, match=message):
            train(config, **options)
        assert not config.run_path.exists()


class TestBadInput:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"training": None}, "training: is missing"),
            ({"training.tokenizer": "nowhere"}, "training.tokenizer: .*nowhere is no directory"),
            ({"training.tokenizer": "."}, "training.tokenizer: .* holds no usable tokenizer"),
            ({"datasets.code.files": ["none*.jsonl"]}, "datasets.code.files: nothing matches"),
            ({"datasets.code.files": ["study.yaml"]}, "neither .jsonl nor .txt"),
            ({"datasets.code.files": []}, "datasets.code.files is empty"),
            ({"training.model": None}, "training.model: is missing"),
            ({"training.model": {}}, "training.model: model_type is missing"),
            ({"training.model.model_type": "lama"}, "model_type 'lama'; did you mean 'llama'"),
            ({"training.model.model_type": "zzz"}, "training.model: no model_type 'zzz'$"),
            ({"training.model.model_type": "vit"}, "training.model: "),
            ({"training.model.hiden_size": 4}, "'hiden_size'; did you mean 'hidden_size'"),
            ({"training.model.hidden_size": "big"}, "training.model: .*'hidden_size'"),
            ({"training.model.num_attention_heads": 5}, "training.model: .*attention heads"),
            ({"training.model.hidden_act": "bogus"}, "training.model: .*bogus"),
            ({"training.model.vocab_size": 5}, "vocab_size 5 is less than the 15 tokens"),
            ({"training.sequence_length": 17}, "sequence_length: 17 is more than .* 16"),
            ({"training.base.tokens": 10}, "training.base.tokens: 10 tokens are less than one"),
            ({"training.component.tokens": 3}, "training.component.tokens: 3 tokens are less"),
            ({"training.component.composition": {"web": 1}}, "component.composition: only the"),
            ({"training.base.composition": {"web": 0.4}}, "base.composition: .*not to 0.4"),
            ({"training.base.composition": {"wbe": 1}}, "no dataset 'wbe'; did you mean 'web'"),
            (
                {"components": {"web": {"composition": {"web": 0.4}}}},
                "components.web.composition: .*not to 0.4",
            ),
            ({"base": "run/models/web"}, "components.web: the name or path is taken"),
        ],
    )
    def test_study_is_refused(self, make: Make, changes: dict[str, Any], message: str) -> None:
        config = make(changes=changes)
        with pytest.raises(ConfigError, match=message) as caught:
            train(config)
        assert "\n" not in str(caught.value)
        assert not (config.run_path / "models").exists()

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (b'{"text": "def"}\nnot json\n', "code.jsonl, line 2: is not JSON"),
            (b'{"txt": "def"}\n', 'code.jsonl, line 1: has no "text"'),
            (b'{"text": 3}\n', 'line 1: has no "text" that is a string'),
            (b"[1]\n", 'line 1: has no "text"'),
            (b'{"text": "def"}\n{"text": "\xff"}\n', "line 2: is not UTF-8"),
            (b'{"text": "\\ud800"}\n', "line 1: .*surrogate"),
            (b'\n{"text": ""}\n', "dataset 'code': no text in .*code.jsonl; add some"),
            (b"", "dataset 'code': no text"),
            (b'{"text": "def"}\n', "code.files: 2 tokens are less than one sequence of 8"),
        ],
    )
    def test_text_is_refused(self, make: Make, text: bytes, message: str) -> None:
        config = make()
        (config.source.parent / "code.jsonl").write_bytes(text)
        with pytest.raises(ConfigError, match=message):
            train(config)
        assert not (config.run_path / "models").exists()
        assert not list((config.run_path / "cache").glob(".*.new"))

    def test_tokenizer_without_eos_is_refused(self, make: Make, corpora: Path) -> None:
        config = make(changes={"training.tokenizer": "other"})
        tokenizer = transformers.AutoTokenizer.from_pretrained(corpora / "tokenizer")
        tokenizer.eos_token = None
        tokenizer.save_pretrained(config.resolve("other"))
        with pytest.raises(ConfigError, match="has no eos_token"):
            train(config)

    def test_infeasible_mixture_is_refused(self, make: Make) -> None:
        config = make(changes={"mixture": {"lower": 0.5}})
        with pytest.raises(ConstraintError, match="study.yaml: mixture: "):
            train(config, references=1)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"only": ["cod"]}, "no model 'cod'; did you mean 'code'"),
            ({"only": ["references"]}, "no model 'references'"),
            ({"only": ["code"]}, "the base is not trained yet; train it first .--only base"),
            ({"only": ["base"], "retrain": ["code"]}, "retrain: no model to train 'code'"),
        ],
    )
    def test_names_are_refused(self, make: Make, options: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            train(make(), **options)

    def test_base_that_is_not_ours_cannot_be_asked_for(self, make: Make) -> None:
        config = make(changes={"training.base": None})
        with pytest.raises(ConfigError, match="training.base: is missing; give it"):
            train(config, only=["base"])

    def test_devices_are_checked(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        config = make()
        with pytest.raises(DemixError, match="device 'tpu' is unknown"):
            train_study(config, device="tpu")
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(DemixError, match="torch sees no GPU here"):
            train_study(config, device="cuda")

    def test_a_file_in_the_way_is_named(self, make: Make) -> None:
        config = make()
        config.run_path.write_text("")
        with pytest.raises(ConfigError, match=f"{config.run_path}.*check the path"):
            train(config)

    def test_batch_must_fit_the_number_of_processes(
        self, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("WORLD_SIZE", "3")
        with pytest.raises(ConfigError, match="training.batch_size: 4 cannot be shared by 3"):
            train(make(), only=["base"])

    def test_missing_packages_are_named(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        find = training.importlib.util.find_spec
        monkeypatch.setattr(
            training.importlib.util,
            "find_spec",
            lambda name: None if name == "transformers" else find(name),
        )
        with pytest.raises(DemixError, match="training needs transformers; pip install"):
            train(make())


@pytest.mark.slow
def test_two_processes_train_the_same_model(make: Make) -> None:
    """Under torchrun the global batches are the same, so the weights agree to rounding."""
    from safetensors.numpy import load_file

    single = train(make("single"))
    config = make("double")
    code = (
        "import sys; from optuna_demix.config import load_study_config as load;"
        "from optuna_demix.training import train_study;"
        "train_study(load(sys.argv[1]), device='cpu', progress=False)"
    )
    script = config.source.parent / "train.py"
    script.write_text(code)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launch, str(script), str(config.source)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("code: 9 steps") == 1  # one process speaks
    for name, model in single.items():
        ours = load_file(model.path / "model.safetensors")
        theirs = load_file(config.run_path / "models" / name / "model.safetensors")
        for tensor, values in ours.items():
            np.testing.assert_allclose(theirs[tensor], values, atol=1e-6)
