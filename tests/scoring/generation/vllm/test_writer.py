"""Texts of vLLM are those of our own loop and of lm-eval's, while the weights change in place."""

from __future__ import annotations

import copy
import json
import logging
import math
import os
import random

import pytest
import torch

from optuna_demix.errors import DemixError, TaskError
from optuna_demix.scoring import Benchmark, HarnessScorer, VllmSettings
from optuna_demix.scoring.generation import Arguments, GreedyLoop
from optuna_demix.scoring.generation.vllm import VllmEngine
from optuna_demix.scoring.vllm_extra import vllm_version

from tests.scoring.generation.samples import HELPERS, TASK, prompts, talker, texts  # isort: skip

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(vllm_version() is None, reason="vLLM is not installed"),
]
# vLLM's attention on a CPU wants heads of 32; its blocks of keys and values hold 128 tokens.
SHAPE = {"hidden_size": 128, "intermediate_size": 96, "max_position_embeddings": 512}
SMALL = VllmSettings(kv_cache_memory_bytes=40_000_000, max_num_seqs=8)
HEADER = "the river of cold stone in the house was long and deep, and seven green birds; " * 8
STOPS = ("night", "igh", " t")


def weights(seed):
    return talker(seed=seed, **SHAPE).state_dict()


@pytest.fixture(scope="module")
def padded(tokenizer):
    made = copy.deepcopy(tokenizer)
    made.pad_token = made.eos_token
    return made


@pytest.fixture(scope="module")
def model():
    return talker(**SHAPE)


@pytest.fixture(scope="module")
def engine(model, padded):
    made = VllmEngine(model, padded, max_length=512, settings=SMALL)
    yield made
    made.close()


@pytest.fixture
def asked(padded):
    """Prompts of which half begin with more than a block of tokens in common."""
    said = texts(12)
    shared = prompts(padded, [HEADER + text for text in said], stops=STOPS, group="shared")
    assert len(padded(HEADER).input_ids) > 256
    return [*shared, *prompts(padded, said, stops=STOPS)]


def by_loop(model, padded, asked):
    loop = GreedyLoop(model, padded, rows=6)
    return loop.generate(asked)


def process_state():
    """What an engine must leave as it was."""
    generators = random.getstate(), torch.get_rng_state().tolist()
    return generators, dict(os.environ), torch.set_num_threads


def test_texts_are_those_of_our_own_loop_after_every_change(model, padded, engine, asked):
    states = [weights(seed) for seed in (0, 1, 2)]
    model.load_state_dict(states[0])
    before = process_state()
    assert engine.refuses(asked[0].arguments) is None
    for state in states:
        model.load_state_dict(state)
        engine.weights_changed()
        found = engine.generate(asked)
        assert found == by_loop(model, padded, asked)
        assert engine.generate(asked[:5]) == found[:5]
    assert len({len(tokens) for tokens in found}) > 3
    assert process_state() == before


def test_without_a_reset_what_was_computed_from_earlier_weights_stays(
    model, padded, engine, asked, monkeypatch
):
    """What the test above would miss, were it not for the reset."""
    model.load_state_dict(weights(0))
    engine.weights_changed()
    engine.generate(asked)
    monkeypatch.setattr(type(engine._engine), "reset_prefix_cache", lambda self: True)
    model.load_state_dict(weights(1))
    engine.weights_changed()
    shared = [prompt for prompt in asked if prompt.group == "shared"]
    assert engine.generate(shared) != by_loop(model, padded, shared)
    monkeypatch.undo()
    engine.weights_changed()
    assert engine.generate(shared) == by_loop(model, padded, shared)


def test_nan_is_said_and_forgotten_with_the_weights(model, padded, engine, asked):
    model.load_state_dict(weights(0))
    wanted = by_loop(model, padded, asked)
    token = next(t for t in asked[-3].ids if t > 100)
    model.model.embed_tokens.weight[token] = math.nan
    engine.weights_changed()
    found, spared = engine.generate(asked), by_loop(model, padded, asked)
    assert found[-3] is None
    assert all(text is None or text == own for text, own in zip(found, spared, strict=True))
    model.load_state_dict(weights(0))
    engine.weights_changed()
    assert engine.generate(asked) == wanted


def test_what_it_cannot_write_is_left_to_lm_eval(engine):
    assert engine.refuses(Arguments(4, (), {"do_sample": True})) == "texts are sampled"
    assert engine.refuses(Arguments(4, (), {"num_beams": 2})) == "num_beams is 2"


@pytest.fixture
def packs_nothing(monkeypatch):
    """Linear layers keep their weights on a CPU too, as they do on CUDA."""
    from vllm.model_executor.layers import utils

    def plain(layer, remove_weight):
        layer.cpu_linear = torch.nn.functional.linear

    monkeypatch.setattr(utils, "dispatch_cpu_unquantized_gemm", plain)


def test_bound_weights_follow_without_being_loaded_again(
    padded, asked, packs_nothing, monkeypatch
):
    model = talker(**SHAPE)
    flat = torch.cat([tensor.flatten() for tensor in model.state_dict().values()])
    start = 0
    for parameter in model.parameters():  # as in a live model, one behind the other
        parameter.data = flat[start : start + parameter.numel()].view(parameter.shape)
        start += parameter.numel()
    engine = VllmEngine(model, padded, max_length=512, settings=SMALL)
    assert engine.refuses(asked[0].arguments) is None
    bindings = engine._source.bindings
    assert bindings.reason is None and bindings.copied == [] and len(bindings.bound) == 15
    monkeypatch.setattr(engine._engine, "collective_rpc", None)
    for seed in (1, 2):
        model.load_state_dict(weights(seed))
        engine.weights_changed()
        assert engine.generate(asked) == by_loop(model, padded, asked)
    engine.close()


def test_a_model_that_vllm_reads_otherwise_is_refused(padded):
    model = talker(**SHAPE)
    model.config.rms_norm_eps = 0.5  # after the model was built
    engine = VllmEngine(model, padded, max_length=512, settings=SMALL)
    with pytest.raises(DemixError, match="vLLM's log-likelihoods differ .* set scoring.gen"):
        engine.refuses(Arguments(4, ()))


@pytest.mark.parametrize("memory", [1000, 10**15])
def test_too_little_memory_is_said_in_one_line(memory, padded):
    settings = VllmSettings(kv_cache_memory_bytes=memory, max_num_seqs=8)
    engine = VllmEngine(talker(**SHAPE), padded, max_length=512, settings=settings)
    with pytest.raises(DemixError) as caught:
        engine.refuses(Arguments(4, ()))
    said = str(caught.value)
    assert said.startswith("vLLM does not start (") and "\n" not in said
    assert "change scoring.vllm.kv_cache_memory_bytes, lower scoring.max_length" in said


def test_weights_are_needed_first(padded):
    model = talker(**SHAPE)
    model.lm_head.weight.fill_(math.nan)
    with pytest.raises(TaskError, match="give it weights first"):
        VllmEngine(model, padded, max_length=512, settings=SMALL).refuses(Arguments(4, ()))


TASKS = {
    "several": '{until: ["night", "\\n", " t", "z"], max_gen_toks: 24}',
    "short": "{until: [], max_gen_toks: 3}",
    "sampled": "{until: [], max_gen_toks: 5, do_sample: true, temperature: 1.0}",
}


def test_scores_are_those_of_lm_eval(tmp_path, tokenizer, caplog):
    rows = [{"prompt": text, "answer": "moon"} for text in texts(10)]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "helpers.py").write_text(HELPERS)
    for name, arguments in TASKS.items():
        (tmp_path / f"{name}.yaml").write_text(TASK.format(name=name, arguments=arguments))
    live = talker(**SHAPE)
    benchmarks = [Benchmark(name, metric) for name in TASKS for metric in ("letters", "length")]
    options = {"include_path": tmp_path, "batch_size": 4}
    with caplog.at_level(logging.WARNING):
        scorer = HarnessScorer(
            benchmarks, live, tokenizer, generation="vllm", vllm=SMALL, **options
        )
    assert caplog.text.count("task 'sampled': lm-eval writes the texts: texts are sampled") == 1
    plain = HarnessScorer(benchmarks, live, tokenizer, generation="hf", **options)
    assert scorer.describe()["generation"] == {"vllm": 24, "lm-eval": 12}
    assert scorer.plan_digest() != plain.plan_digest()
    for seed in (0, 1):
        live.load_state_dict(weights(seed))
        assert scorer.score() == plain.score()
