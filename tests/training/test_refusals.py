from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from optuna_demix._progress import Report
from optuna_demix.errors import ConfigError, ConstraintError, DemixError
from optuna_demix.training import train_study
from optuna_demix.training._job import Job, Run
from optuna_demix.training.data.vocabulary import Vocabulary
from tests.training.samples import Make, train

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


class TestBadInput:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"training": None}, "training: is missing"),
            ({"training.tokenizer": "nowhere"}, "training.tokenizer: .*nowhere is no directory"),
            ({"training.tokenizer": "."}, "training.tokenizer: .* holds no usable tokenizer"),
            ({"datasets.code.files": ["none*.jsonl"]}, "datasets.code.files: nothing matches"),
            ({"datasets.code.files": ["study.yaml"]}, "is none of the formats jsonl"),
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
            (
                {"components": {"web": {"path": "m/web"}, "code": {"path": "m/web/code"}}},
                "components.code: .*m/web/code lies inside the path of 'web'",
            ),
            (
                {"components": {"web": {"path": "m/web"}, "code": {"path": "m"}}},
                "components.web: .*m/web lies inside the path of 'code'",
            ),
            ({"base": "run/models/web/base"}, "base: .*base lies inside the path of 'web'"),
            (
                {"components": {"web": {"path": "run/models/references/web"}}},
                "components.web: .*/web lies inside .*models/references, which is kept",
            ),
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
        find = importlib.util.find_spec
        monkeypatch.setattr(
            importlib.util,
            "find_spec",
            lambda name: None if name == "transformers" else find(name),
        )
        with pytest.raises(DemixError, match="training needs transformers; pip install"):
            train(make())


def test_names_with_slashes_keep_their_checkpoints_apart(make: Make) -> None:
    """Dropping the checkpoints of ``web`` must not drop those of ``web/high``."""
    config = make()
    assert config.training is not None
    job = Job(
        config, config.training, Vocabulary.open(config, config.training), "cpu", Report(print)
    )
    run = Run("web", "training.component", Path("web"), config.training.component, {}, 1)
    folders = [job.partial(replace(run, name=name)) for name in ("web", "web/high", "web%2Fhigh")]
    assert len(set(folders)) == 3
    assert len({folder.parent for folder in folders}) == 1
