"""Packed rows give what plain ones give, from fewer tokens, or are left alone."""

from __future__ import annotations

import logging
import math
import re

import pytest
import torch
from _tiny_causal_lms import tiny_config
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from optuna_demix.errors import TaskError
from optuna_demix.scoring import Benchmark, HarnessScorer
from optuna_demix.scoring.forward.batches import share_rows
from optuna_demix.scoring.forward.packing import pack
from tests.tiny_models import VOCABULARY

from tests.scoring.samples import make_model  # isort: skip

pytestmark = pytest.mark.xdist_group("scoring")

_IDS = st.lists(st.integers(0, 2), min_size=1, max_size=6)
_PAIRS = st.lists(st.tuples(_IDS, _IDS), min_size=1, max_size=25)
EVERY = [
    Benchmark("prose", "bits_per_byte"),
    Benchmark("choice", "acc_norm"),
    Benchmark("choice", "exact_match"),
    Benchmark("letters", "acc"),
    Benchmark("cloze", "acc"),
    Benchmark("say", "exact_match,whole"),
]


def answers(scorer):
    with torch.inference_mode():
        return [
            answer if isinstance(answer, tuple) else (answer, False)
            for kind, plans in scorer._suite._plans.items()
            for plan in plans
            if kind != "generate_until"
            for answer in scorer._lm.answer(plan)
        ]


def tokens(scorer):
    plans = [plan for plans in scorer._suite._plans.values() for plan in plans]
    return sum(passed.inputs.numel() for plan in plans for passed in plan.passes)


@settings(max_examples=150, deadline=None)
@given(pairs=_PAIRS, pass_tokens=st.integers(1, 60), square_cost=st.sampled_from([0.0, 0.1, 9.0]))
def test_every_token_sees_its_own_row_and_nothing_else(pairs, pass_tokens, square_cost):
    rows = share_rows(pairs, max_length=7)
    passes = pack(rows, pass_tokens=pass_tokens, square_cost=square_cost)
    found = {}
    for packed in passes:
        mask = packed.mask(torch.device("cpu"))[:, 0]
        for number, tree in enumerate(packed.trees):
            for reading in tree.members:
                # What the model knows where it predicts each token: ids by position.
                seen = []
                for place in reading.scored:
                    visible = mask[number, place].nonzero().flatten()
                    assert packed.depths[number, visible].tolist() == list(range(len(visible)))
                    seen.append(packed.inputs[number, visible].tolist())
                assert found.setdefault(reading.request, (reading.tokens, seen)) == (
                    reading.tokens,
                    seen,
                )
        longest = max(len(tree.ids) for tree in packed.trees)
        assert len(packed.trees) == 1 or packed.inputs.numel() <= max(pass_tokens, longest)
    expected = {}
    for row in rows:
        for reading in row.readings:
            ends = [row.first + place + 1 for place in reading.scored]
            expected[reading.request] = (reading.tokens, [row.ids[:end] for end in ends])
    assert found == expected


def test_a_common_beginning_is_computed_once():
    pairs = [([1, 2, 3, 4], [token, 6]) for token in (5, 6, 7)] + [([1, 2, 9], [8])]
    (packed,) = pack(share_rows(pairs, max_length=9), pass_tokens=99, square_cost=0.0)
    assert packed.inputs.tolist() == [[1, 2, 3, 4, 5, 6, 7, 9]]
    assert packed.depths.tolist() == [[0, 1, 2, 3, 4, 4, 4, 2]]
    assert packed.ends.tolist() == [[8, 8, 7, 7, 5, 6, 7, 8]]
    apart = pack(share_rows(pairs, max_length=9), pass_tokens=5, square_cost=0.0)
    assert sum(p.inputs.numel() for p in apart) > 8


@pytest.mark.parametrize(("kind", "shots"), [("llama", 2), ("neox", 0), ("gpt2", 2)])
def test_answers_are_those_of_the_plain_path(kind, shots, tasks, tokenizer):
    model = make_model(kind)
    options = {"include_path": tasks, "batch_size": 4, "num_fewshot": shots}
    plain = HarnessScorer(EVERY, model, tokenizer, **options)
    packed = HarnessScorer(EVERY, model, tokenizer, **options, shared_prefixes=True)
    assert packed.describe()["shared_prefixes"] is True
    assert tokens(packed) < 0.75 * tokens(plain)
    for (one, greedy), (other, also_greedy) in zip(answers(plain), answers(packed), strict=True):
        assert one == pytest.approx(other, abs=1e-4)
        assert greedy == also_greedy
    assert packed.score() == pytest.approx(plain.score(), abs=1e-6)
    assert packed.plan_digest() != plain.plan_digest()
    again = HarnessScorer(EVERY, make_model(kind), tokenizer, **options, shared_prefixes=True)
    assert packed.plan_digest() == again.plan_digest()


def test_eager_attention_and_half_precision(tasks, tokenizer):
    model = make_model(dtype=torch.bfloat16)
    model.set_attn_implementation("eager")
    options = {"include_path": tasks, "batch_size": 4}
    plain = HarnessScorer(EVERY[:2], model, tokenizer, **options)
    packed = HarnessScorer(EVERY[:2], model, tokenizer, **options, shared_prefixes=True)
    assert packed.describe()["shared_prefixes"] is True
    assert packed.score() == pytest.approx(plain.score(), rel=0.02, abs=0.1)


@pytest.mark.parametrize("ignored", ["attention_mask", "position_ids"])
def test_a_model_that_ignores_what_it_is_told_is_scored_plainly(
    ignored, tasks, tokenizer, model, caplog
):
    forward = model.forward

    def deaf(*arguments, **options):
        return forward(*arguments, **{k: v for k, v in options.items() if k != ignored})

    options = {"include_path": tasks, "batch_size": 4, "generation": "hf"}
    wanted = HarnessScorer(EVERY, model, tokenizer, **options)
    model.forward = deaf
    with caplog.at_level(logging.WARNING):
        scorer = HarnessScorer(EVERY, model, tokenizer, **options, shared_prefixes=True)
    assert scorer.describe()["shared_prefixes"] is False
    assert "shared_prefixes is left off: packed rows change a log-likelihood" in caplog.text
    assert scorer.plan_digest() == wanted.plan_digest()
    assert scorer.score() == wanted.score()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("lfm2", "Lfm2ForCausalLM has layers of type 'conv'"),
        ("falcon_h1", "FalconH1ForCausalLM carries a state from token to token"),
        ("cohere2", "inputs of [0-9]+ tokens exceed sliding_window, 4"),
    ],
)
def test_a_model_that_sees_more_than_the_mask_is_scored_plainly(
    kind, reason, dtype, tasks, tokenizer, caplog
):
    model = tiny_model(kind, dtype)
    options = {"include_path": tasks, "batch_size": 4}
    with caplog.at_level(logging.WARNING):
        scorer = HarnessScorer(EVERY[1:3], model, tokenizer, **options, shared_prefixes=True)
    assert scorer.describe()["shared_prefixes"] is False
    assert re.search(f"shared_prefixes is left off: .*{reason}", caplog.text)


def test_a_window_that_no_input_fills_does_not_count(tasks, tokenizer):
    model = tiny_model("cohere2", torch.bfloat16, sliding_window=64)
    options = {"include_path": tasks, "batch_size": 4}
    scorer = HarnessScorer(EVERY[1:3], model, tokenizer, **options, shared_prefixes=True)
    assert scorer.describe()["shared_prefixes"] is True
    assert model.dtype == torch.bfloat16


def tiny_model(kind, dtype, **fields):
    config = tiny_config(kind)
    for name, value in {"vocab_size": VOCABULARY, **fields}.items():
        setattr(config, name, value)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.3)
    return model.eval()


def test_a_model_that_refuses_is_scored_plainly(tasks, tokenizer, model, caplog):
    forward = model.forward
    model.forward = lambda ids, **options: forward(ids) if not options else 1 / 0
    with caplog.at_level(logging.WARNING):
        scorer = HarnessScorer(
            EVERY[:2], model, tokenizer, include_path=tasks, shared_prefixes=True
        )
    assert scorer.describe()["shared_prefixes"] is False
    assert "the model refuses packed rows (ZeroDivisionError: division by zero)" in caplog.text


def test_a_model_without_weights_cannot_be_tried(tasks, tokenizer, model):
    model.model.embed_tokens.weight.data.fill_(math.nan)
    with pytest.raises(TaskError, match="give it weights first"):
        HarnessScorer(EVERY[:2], model, tokenizer, include_path=tasks, shared_prefixes=True)
