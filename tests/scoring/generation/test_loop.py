"""Texts of the own loop are those of lm-eval's, whatever memory and weights do meanwhile."""

from __future__ import annotations

import logging
import math

import pytest
import torch

from optuna_demix.errors import TaskError
from optuna_demix.scoring.generation import Arguments, GreedyLoop

from tests.scoring.generation.samples import (  # isort: skip
    Watched,
    both_ways,
    prompts,
    requests,
    talker,
    texts,
)
from tests.scoring.samples import make_model  # isort: skip

pytestmark = pytest.mark.xdist_group("scoring")
HEADER = (
    "the river of cold stone in the house was long and deep, and seven green birds; "
    "in the old moon over the cold river lay three small trees: "
)
EMPTY = [*"nbcogeta", "#"]


@pytest.fixture(scope="module")
def padded(tokenizer):
    import copy

    made = copy.deepcopy(tokenizer)
    made.pad_token = made.eos_token
    return made


@pytest.fixture(scope="module")
def right(padded):
    """What ``generate`` writes, one prompt at a time."""

    def write(model, asked):
        return [
            model.generate(
                torch.tensor([p.ids]),
                max_new_tokens=p.arguments.max_tokens,
                do_sample=False,
                pad_token_id=0,
            )[0, len(p.ids) :].tolist()
            for p in asked
        ]

    return write


@pytest.mark.parametrize(
    ("rows", "arguments"),
    [
        pytest.param(1, {"until": ["night", "\n", " t", "z"]}, id="several stop strings"),
        pytest.param(4, {"until": ["igh", "oco"]}, id="in and across tokens"),
        pytest.param(64, {"until": ["oco", "co", "b\u00e9", "\u0e9a", "c"]}, id="overlapping"),
        pytest.param(4, {"until": ["c", "oco", "co"]}, id="overlapping, turned round"),
        pytest.param(4, {"until": EMPTY}, id="empty texts"),
        pytest.param(1, {"until": "night", "max_gen_toks": 3}, id="few tokens"),
        pytest.param(64, {"max_gen_toks": 60, "temperature": 0.0}, id="truncated prompts"),
        pytest.param(4, {"until": [], "do_sample": False, "top_p": 0.9}, id="no stop string"),
    ],
)
def test_texts_are_lm_evals(rows, arguments, tokenizer):
    asked = requests(texts(14), {"max_gen_toks": 24, **arguments})
    ours, theirs, own = both_ways(talker(), tokenizer, asked, rows=rows, max_length=80)
    assert ours == theirs
    assert all(own)
    assert len(set(theirs)) > 4
    assert arguments.get("until") != EMPTY or "" in theirs


@pytest.mark.parametrize("kind", ["llama", "neox", "gpt2"])
def test_kinds_of_models(kind, tokenizer):
    model = make_model(kind)
    model.generation_config.eos_token_id = [0, 7]
    asked = requests(texts(12), {"until": [" the", "th"], "max_gen_toks": 12})
    ours, theirs, own = both_ways(model, tokenizer, asked)
    assert ours == theirs and all(own)


def test_tasks_and_arguments_side_by_side(tokenizer):
    asked = [
        *requests(texts(9, header=HEADER), {"until": ["a"], "max_gen_toks": 16}, task="one"),
        *requests(texts(9, seed=1), {"until": ["o"], "max_gen_toks": 9}, task="two"),
        *requests(texts(9, header=HEADER[:40], seed=2), {"max_gen_toks": 16}, task="three"),
        *requests(texts(5), {"do_sample": True, "temperature": 1.0, "max_gen_toks": 4}),
    ]
    torch.manual_seed(0)
    ours, theirs, own = both_ways(talker(), tokenizer, asked[:-7])
    assert ours == theirs and all(own)
    _, _, own = both_ways(talker(), tokenizer, asked)
    assert own == [True] * (len(asked) - 7) + [False] * 7


def test_rows_that_end_are_not_computed_any_more(padded):
    model = talker()
    asked = prompts(padded, texts())
    loop = GreedyLoop(model, padded, rows=4)
    assert loop.refuses(asked[0].arguments) is None
    watched = Watched(model)
    found = loop.generate(asked)
    written = sum(len(tokens) - 1 for tokens in dict(zip(asked, found, strict=True)).values())
    assert sum(rows for rows, width in watched.shapes if width == 1) == written


def test_what_prompts_begin_with_is_computed_once_for_each_proxy(padded, right):
    model = talker()
    asked = prompts(padded, texts(12, header=HEADER), limit=8)
    longest = max(len(p.ids) for p in asked) - len(padded(HEADER).input_ids) + 2
    assert len(padded(HEADER).input_ids) > longest
    loop = GreedyLoop(model, padded, rows=4)
    wanted = right(model, asked)
    watched = Watched(model)

    def beginnings():
        return [rows for rows, width in watched.shapes if width > longest]

    assert [*loop.generate(asked[:5]), *loop.generate(asked[5:])] == wanted
    assert beginnings() == [1]  # also of two blocks
    model.load_state_dict(talker(seed=1).state_dict())
    loop.weights_changed()
    wanted = right(model, asked)
    watched.shapes.clear()
    assert loop.generate(asked) == wanted
    assert beginnings() == [1]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_it_is_kept_once_where_the_attention_allows_and_else_copied(
    attention, padded, right, monkeypatch
):
    from optuna_demix.scoring.generation import loop as module

    made = []

    class Seen(module.RowCache):
        def __init__(self, rows):
            super().__init__(rows)
            made.append(self)

    monkeypatch.setattr(module, "RowCache", Seen)
    model = talker()
    model.set_attn_implementation(attention)
    # Rows of several groups side by side, each with another beginning or none.
    asked = [
        *prompts(padded, texts(7, header=HEADER), limit=8, group="one"),
        *prompts(padded, texts(7, seed=1), limit=12, group="two"),
        *prompts(padded, texts(7, header=HEADER[20:], seed=2), limit=8, group="three"),
    ]
    wanted = right(model, asked)
    forward = model.forward
    widths = []
    for drops in ((), ("fronts",)):

        def plain(input_ids, drops=drops, **options):
            return forward(input_ids, **{n: v for n, v in options.items() if n not in drops})

        model.forward = plain
        loop = GreedyLoop(model, padded, rows=8)
        assert loop.refuses(asked[0].arguments) is None
        made.clear()
        assert loop.generate(asked) == wanted
        assert model.config._attn_implementation == attention
        made.clear()
        loop.generate(asked[:7])
        widths.append(max(t.shape[2] for t in made[0]._tensors()))
    assert widths[0] < widths[1]


def test_tokens_are_counted_as_they_are_written(padded):
    from optuna_demix.scoring.generation import Progress

    told, progress = [], Progress()
    progress.watcher = lambda written, expected: told.append((written, expected))
    model = talker()
    asked = prompts(padded, texts(6), limit=8)
    progress.plan(asked)
    for attempt in range(2):
        progress.restart()
        told.clear()
        found = GreedyLoop(model, padded, rows=2, wrote=progress.add).generate(asked)
        progress.settle(asked, found)
        count = sum(len(text) for text in dict(zip(asked, found, strict=True)).values())
        written = [number for number, _ in told]
        assert written == sorted(written) and len(set(written)) > 3
        assert told[-1] == (count, count if attempt else 8 * len(set(asked)))
    progress.restart()
    told.clear()
    progress.settle(asked, found)  # of an engine that does not count
    assert told == [(count, count)]


def test_less_memory_means_fewer_rows(padded, right, caplog):
    model = talker()
    asked = prompts(padded, texts(10, header=HEADER), limit=12)
    wanted = right(model, asked)
    loop = GreedyLoop(model, padded, rows=8)
    watched = Watched(model, rows=3)
    with caplog.at_level(logging.WARNING):
        assert loop.generate(asked) == wanted
    assert "going on with 2 rows" in caplog.text
    caplog.clear()
    watched.shapes.clear()
    assert loop.generate(asked) == wanted
    assert max(rows for rows, _ in watched.shapes) == 2  # it has learned its lesson
    watched.rows = 0
    with pytest.raises(TaskError, match="does not fit into memory; lower"):
        loop.generate(asked)


def test_nan_is_told_and_spoils_no_other_row(padded, right):
    model = talker()
    asked = prompts(padded, texts(14), limit=12)
    wanted = right(model, asked)
    token = asked[0].ids[-1]
    model.model.embed_tokens.weight[token] = math.nan
    found = GreedyLoop(model, padded, rows=3).generate(asked)
    assert found[0] is None
    spared = 0
    for prompt, tokens, before in zip(asked, found, wanted, strict=True):
        if token not in (*prompt.ids, *before[:-1]):
            assert tokens == before
            spared += 1
        else:
            assert tokens is None
    assert 3 < spared < len(asked)


def test_a_broken_model_answers_nan(tokenizer):
    from optuna_demix.scoring.harness import PreparedModel

    model = talker()
    lm = PreparedModel(model, tokenizer, batch_size=4)
    (plan,) = lm.prepare("generate_until", [requests(texts(4), {"max_gen_toks": 9})])
    model.model.layers[0].mlp.up_proj.weight[0, 0] = math.nan
    assert all(math.isnan(answer) for answer in lm.answer(plan))


def test_bfloat16(tokenizer):
    asked = requests(texts(), {"until": ["night"], "max_gen_toks": 8})
    ours, theirs, own = both_ways(talker(dtype=torch.bfloat16), tokenizer, asked)
    assert all(own)
    equal = sum(one == other for one, other in zip(ours, theirs, strict=True))
    assert equal >= 0.8 * len(ours)  # rounding may tip a token


def test_stop_strings_beyond_a_row_of_one_token(padded):
    asked = prompts(padded, texts(3), limit=1)
    found = GreedyLoop(talker(), padded, rows=2).generate(asked)
    assert [len(tokens) for tokens in found] == [1] * len(asked)
    assert GreedyLoop(talker(), padded, rows=2).generate([]) == []
    assert GreedyLoop(talker(), padded, rows=2).refuses(Arguments(0, ())) is not None
