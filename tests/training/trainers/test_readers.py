"""The trainers themselves read what is planned for them; `make test-readers` installs them."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import importlib.util
import json
import os
import shlex
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Optional, Union

import pytest
import yaml

from tests.tiny_models import LLAMA
from tests.training.samples import BATCH, SEQUENCE, WORDS, Make
from tests.training.trainers.samples import (
    TORCHTITAN,
    TORCHTITAN_STUBS,
    in_format,
    module_of,
    plan,
    start_for,
    write_tokens,
)
from tests.training.trainers.stubs import import_beside

pytestmark = [
    pytest.mark.readers,
    pytest.mark.filterwarnings("ignore"),
]

pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


def test_torchtitan(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its command line finds the module, and its trainer's classes take all of it."""
    import_beside(monkeypatch, TORCHTITAN, *TORCHTITAN_STUBS)
    manager = pytest.importorskip("torchtitan.config.manager")
    changes = {"training.component.schedule": "wsd", "training.component.decay_ratio": 0.33}
    study = make(changes=changes)
    folder = plan(study, "torchtitan")
    monkeypatch.syspath_prepend(str(folder))
    base, code = (
        manager.ConfigManager().parse_args(["--module", slug, "--config", "config"])
        for slug in ("base", "component_code")
    )
    assert (base.training.steps, code.training.steps) == (10, 9)
    assert (code.training.seq_len, code.training.global_batch_size) == (SEQUENCE, BATCH)
    assert code.checkpoint.initial_load_path == code.hf_model == str(study.base_path)
    assert code.checkpoint.last_save_in_hf
    assert {s.dataset: s.weight for s in code.dataloader.sources} == {"web": 0.25, "code": 0.75}

    import torch

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    for config in (base, code):
        rates = (
            config.lr_scheduler.build(optimizers=[optimizer], training_steps=config.training.steps)
            .schedulers[0]
            .lr_lambdas[0]
        )
        assert rates(0) == 1.0
        assert rates(config.training.steps) == pytest.approx(0.2)


def test_megatron_core(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its classes take the model, the optimizer and the blend."""
    core = pytest.importorskip("megatron.core.transformer.transformer_config")
    utils = pytest.importorskip("megatron.core.datasets.utils")
    folder = plan(make(), "megatron")
    values = dict(_pair(line) for line in (folder / "component_code.args").open())
    core.TransformerConfig(
        num_layers=int(values["num-layers"]),
        hidden_size=int(values["hidden-size"]),
        ffn_hidden_size=int(values["ffn-hidden-size"]),
        num_attention_heads=int(values["num-attention-heads"]),
        kv_channels=int(values["kv-channels"]),
        normalization=values["normalization"],
        layernorm_epsilon=float(values["norm-epsilon"]),
    )
    words = (folder / "component_code.blend").read_text().split()
    assert utils.get_blend_from_list(words) == (["/data/web", "/data/code"], [0.25, 0.75])


def _pair(line: str) -> tuple[str, str]:
    name, *value = shlex.split(line)
    return name.removeprefix("--"), value[0] if value else ""


def test_megatron_lm(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parser of a checkout, for which there is no package."""
    stubs = ("megatron.legacy", "megatron.rl", "triton")
    parser = import_beside(monkeypatch, "megatron.training.arguments", *stubs)
    for changes in (
        {},
        {"training.component.schedule": "wsd", "training.component.decay_ratio": 0.33},
        {"training.model.model_type": "qwen3", "training.model.num_key_value_heads": 1},
    ):
        folder = plan(make(changes=changes), "megatron")
        words = shlex.split((folder / "component_code.args").read_text())
        monkeypatch.setattr(sys, "argv", ["pretrain_gpt.py", *words])
        found = parser.parse_args()
        assert (found.train_iters, found.lr, found.min_lr) == (9, 0.001, 0.0002)
        assert (found.padded_vocab_size, found.split) == (15, "100,0,0")


def test_megatron_bridge(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its classes, beside stubs of its models, which need a GPU's libraries."""
    stubs = (
        "megatron.bridge.data",
        "megatron.bridge.models",
        "megatron.bridge.peft",
        "megatron.bridge.training.comm_overlap",
        "megatron.bridge.training.gpt_step",
        "megatron.bridge.training.pretrain",
        "megatron.bridge.training.tokenizers.tokenizer",
        "megatron.core.extensions.transformer_engine",
        "nvidia_resiliency_ext",
        "transformer_engine",
    )
    import_beside(monkeypatch, "megatron.bridge.training.config", *stubs)
    folder = plan(make(), "megatron-bridge")
    settings = module_of(folder / "component_code.py", monkeypatch).config(model=SimpleNamespace())
    assert settings.train.train_iters == settings.scheduler.lr_decay_iters == 9
    assert settings.train.global_batch_size == BATCH
    assert settings.dataset.blend_per_split == [
        (["/data/web", "/data/code"], [0.25, 0.75]),
        None,
        None,
    ]
    assert settings.dataset.seq_length == SEQUENCE
    assert settings.optimizer.min_lr == 0.0002


KINDS = {
    "llama": {"tie_word_embeddings": False, "num_key_value_heads": 1},
    "qwen3": {"head_dim": 8, "num_key_value_heads": 2},
    "olmo2": {"tie_word_embeddings": False},
}


@pytest.mark.parametrize("kind", KINDS)
def test_olmo_core_starts_from_and_leaves_the_model(
    kind: str, make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its model gives the logits of transformers', and comes back as it was."""
    pytest.importorskip("olmo_core.train", reason="no OLMo-core here")
    import torch

    model = {**LLAMA, **KINDS[kind], "model_type": kind, "max_position_embeddings": 16}
    model["hidden_size"], model["intermediate_size"] = 16, 24
    folder = plan(make(changes={"training.model": model}), "olmo-core")
    given = {**model, "vocab_size": 15}
    given.pop("model_type")
    theirs = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(kind, **given)
    )
    theirs.save_pretrained(folder / "start")
    script = module_of(folder / "base.py", monkeypatch)
    ours = script.model_config().build(init_device="cpu")
    state = script.from_hf()
    ours.load_state_dict(state)
    tokens = torch.arange(SEQUENCE).unsqueeze(0)
    with torch.no_grad():
        assert torch.allclose(ours(tokens), theirs(tokens).logits, atol=1e-5)
    monkeypatch.setattr(script, "HF", str(tmp_path / "hf"))
    script.save_hf(ours.state_dict())
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    for name, value in theirs.state_dict().items():
        assert torch.equal(back.state_dict()[name], value), name


def test_olmo_core_takes_the_settings(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("olmo_core.train", reason="no OLMo-core here")
    script = module_of(plan(make(), "olmo-core") / "component_code.py", monkeypatch)
    module, trainer = script.train_module_config(), script.trainer_config()
    assert module.rank_microbatch_size == module.max_sequence_length == SEQUENCE
    rate = module.scheduler.get_lr(1.0, 9, 9)
    assert (rate, trainer.max_duration.value) == (pytest.approx(0.2), 9)
    (stage,) = script.STAGES.values()
    assert stage[0] == 9 * SEQUENCE * BATCH
    assert {name: source[:2] for name, source in stage[1].items()} == {
        "web": ("/data/web", 0.25),
        "code": ("/data/code", 0.75),
    }


def test_olmo_core_trains(make: Make, tmp_path: Path) -> None:
    """The whole way: random weights, ten steps on the blend, Hugging Face."""
    pytest.importorskip("olmo_core.train", reason="no OLMo-core here")
    home = make().source.parent
    for name in WORDS:
        write_tokens(home, "olmo-core", name, 4000)
    config = make(changes=in_format("olmo-core"))
    folder = plan(config, "olmo-core", paths=None)
    model = start_for(folder)
    (folder / "out" / "base").mkdir(parents=True)
    alone = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "LOCAL_WORLD_SIZE": 1, "NUM_NODES": 1}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    subprocess.run(
        [sys.executable, str(folder / "base.py")],
        env={**os.environ, **{name: str(value) for name, value in {**alone, **place}.items()}},
        check=True,
        capture_output=True,
    )
    trained = transformers.AutoModelForCausalLM.from_pretrained(folder / "out" / "base" / "hf")
    moved = trained.lm_head.weight - model.lm_head.weight
    assert 0.0 < float(moved.detach().abs().max()) < 0.1  # from these weights, by ten small steps


def test_nanotron(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its classes, from a checkout: releases on the index are older than its stages of data."""
    config = import_beside(
        monkeypatch, "nanotron.config", "datatrove", "flash_attn", "lighteval", "numba", "triton"
    )
    if not hasattr(config, "NanosetDatasetsArgs"):
        pytest.skip("a nanotron that knows no stages of tokenized data")
    folder = plan(make(), "nanotron")
    found = config.get_config_from_file(str(folder / "component_code.yaml"))
    assert (found.tokens.train_steps, found.global_batch_size) == (9, BATCH)
    (stage,) = found.data_stages
    assert stage.data.dataset.dataset_folder == ["/data/web", "/data/code"]
    assert stage.data.dataset.dataset_weights == [0.25, 0.75]
    assert found.model.model_config.vocab_size == 15
    assert found.model.init_method.path == folder / "out" / "component_code" / "start"


def test_llm_foundry(make: Make) -> None:
    """Its ``TrainConfig``, alone: the rest needs torchvision and older transformers."""
    omegaconf = pytest.importorskip("omegaconf", reason="no OmegaConf here")
    found = importlib.util.find_spec("llmfoundry")
    if found is None or not found.submodule_search_locations:
        pytest.skip("no LLM Foundry here")
    file = Path(found.submodule_search_locations[0], "utils", "config_utils.py")
    names = {
        **{name: getattr(dataclasses, name) for name in ("dataclass", "field", "fields")},
        "Any": Any,
        "Optional": Optional,
        "Union": Union,
        "MISSING": omegaconf.MISSING,
    }
    (node,) = (
        node
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.ClassDef) and node.name == "TrainConfig"
    )
    exec(compile(ast.Module([node], []), str(file), "exec", dont_inherit=True), names)
    config: Any = names["TrainConfig"]
    for options in ({}, {"gpus": 2}):
        folder = plan(make(), "llm-foundry", **options)
        content = yaml.safe_load((folder / "component_code.yaml").read_text())
        fields = {field.name for field in dataclasses.fields(config)}
        assert content.keys() <= fields
        merged = omegaconf.OmegaConf.merge(omegaconf.OmegaConf.structured(config), content)
        assert merged.max_duration == "9ba"
        streams = merged.train_loader.dataset.streams
        assert {name: stream.proportion for name, stream in streams.items()} == {
            "web": 0.25,
            "code": 0.75,
        }


def test_transformers(make: Make) -> None:
    folder = plan(make(), "hf")
    content = json.loads((folder / "component_code.json").read_text())
    parser = transformers.HfArgumentParser(transformers.TrainingArguments)
    (arguments,) = parser.parse_dict({**content["arguments"], "use_cpu": True})
    assert arguments.max_steps == 9
