"""What is left to lm-eval's own loop, and that it is said once."""

from __future__ import annotations

import copy
import logging
import math

import pytest
import torch

from optuna_demix.errors import TaskError
from optuna_demix.scoring.generation import Arguments, GreedyLoop

from tests.scoring.generation.samples import both_ways, requests, talker, texts  # isort: skip
from tests.tiny_models import VOCABULARY, llama_config  # isort: skip

pytestmark = pytest.mark.xdist_group("scoring")
PLAIN = {"until": ["night"], "max_gen_toks": 6}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"do_sample": True, "temperature": 0.7}, "texts are sampled"),
        ({"temperature": 0.7}, "texts are sampled"),
        ({"num_beams": 2}, "num_beams is 2"),
        ({"repetition_penalty": 1.2}, "repetition_penalty is 1.2"),
        ({"max_length": 90}, "max_length is 90"),
        ({"until": ["<stop>"]}, "the stop string '<stop>' is a special token"),
    ],
)
def test_arguments(arguments, said, tokenizer, caplog):
    special = copy.deepcopy(tokenizer)
    special.add_special_tokens({"additional_special_tokens": ["<stop>"]})
    asked = requests(texts(4), {**PLAIN, **arguments})
    with caplog.at_level(logging.WARNING):
        ours, _, own = both_ways(talker(), special, asked)
    assert not any(own) and all(isinstance(text, str) for text in ours)
    assert caplog.text.count(f"task 'say': lm-eval writes the texts: {said}") == 1


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("repetition_penalty", 1.1, "generation_config sets repetition_penalty to 1.1"),
        ("max_new_tokens", 4, "generation_config sets max_new_tokens to 4"),
        ("eos_token_id", 5, "the tokenizer's end token is none of"),
        ("eos_token_id", None, "the tokenizer's end token is none of"),
    ],
)
def test_what_the_model_is_told_by_its_generation_config(setting, value, said, tokenizer, caplog):
    model = talker()
    setattr(model.generation_config, setting, value)
    with caplog.at_level(logging.WARNING):
        ours, theirs, own = both_ways(model, tokenizer, requests(texts(4), PLAIN))
    assert not any(own) and ours == theirs
    assert said in caplog.text


def test_settings_of_sampling_do_not_matter_to_greedy_search(tokenizer):
    model = talker()
    chosen = {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "repetition_penalty": 1.0}
    for name, value in chosen.items():
        setattr(model.generation_config, name, value)
    asked = requests(texts(6), {**PLAIN, "do_sample": False})
    ours, theirs, own = both_ways(model, tokenizer, asked)
    assert all(own) and ours == theirs


def test_thoughts_prompts_without_tokens_and_mixed_beginnings(tokenizer, caplog):
    with caplog.at_level(logging.WARNING):
        _, _, own = both_ways(
            talker(), tokenizer, requests(texts(4), PLAIN), think_end_token="night"
        )
        assert not any(own)
        lines = requests(["<eos>one two", "three"], PLAIN)
        assert not any(both_ways(talker(), tokenizer, lines)[2])
    assert "of texts with thoughts" in caplog.text
    assert "some prompts begin with the BOS token" in caplog.text


def test_sliding_windows(tokenizer):
    from transformers import MistralConfig, MistralForCausalLM

    fields = llama_config(
        vocab_size=VOCABULARY, bos_token_id=0, eos_token_id=0, num_key_value_heads=2
    ).to_dict()
    fields = {k: v for k, v in fields.items() if k not in ("model_type", "architectures")}
    for window, said in ((8, "DynamicSlidingWindowLayer, not full attention"), (None, None)):
        model = MistralForCausalLM(MistralConfig(**fields, sliding_window=window)).eval()
        refused = _loop(model, tokenizer).refuses(Arguments(4, ()))
        assert refused is None if said is None else said in refused


def test_a_model_without_a_head_cannot_generate(tokenizer):
    said = _loop(talker().model, tokenizer).refuses(Arguments(4, ()))
    assert said == "transformers cannot generate with it"


def _loop(model, tokenizer):
    padded = copy.deepcopy(tokenizer)
    padded.pad_token = padded.eos_token
    return GreedyLoop(model, padded, rows=4)


def test_a_model_that_ignores_what_it_is_given(tokenizer):
    model = talker()
    forward = model.forward

    def ignores(input_ids, *, position_ids=None, **options):
        return forward(input_ids, **options)

    model.forward = ignores
    assert "change a logit" in _loop(model, tokenizer).refuses(Arguments(4, ()))

    def refuses(input_ids, *, past_key_values=None, **options):
        if past_key_values is not None:
            raise TypeError("no such cache")
        return forward(input_ids, **options)

    model.forward = refuses
    said = _loop(model, tokenizer).refuses(Arguments(4, ()))
    assert said == "the model refuses rows that join (TypeError: no such cache)"


def test_weights_are_needed_first(tokenizer):
    model = talker()
    model.lm_head.weight.fill_(math.nan)
    with pytest.raises(TaskError, match="give it weights first"):
        _loop(model, tokenizer).refuses(Arguments(4, ()))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_kinds_of_attention_and_dtypes(attention, dtype, tokenizer):
    model = talker(dtype=dtype)
    model.set_attn_implementation(attention)
    assert _loop(model, tokenizer).refuses(Arguments(4, ())) is None
