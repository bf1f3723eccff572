"""Scoring in blocks."""

from __future__ import annotations

import math

import numpy as np
import pytest

from optuna_demix.errors import TaskError
from optuna_demix.scoring import Benchmark, HarnessScorer

from tests.scoring.samples import make_model  # isort: skip

pytestmark = pytest.mark.xdist_group("scoring")

SOME = [
    Benchmark("prose", "bits_per_byte"),
    Benchmark("choice", "acc"),
    Benchmark("choice", "bits_per_byte_gold"),
    Benchmark("both", "acc"),
    Benchmark("say", "exact_match,whole"),
]


def make(model, tokenizer, tasks, **options):
    return HarnessScorer(SOME, model, tokenizer, include_path=tasks, batch_size=4, **options)


@pytest.mark.parametrize("shared_prefixes", [False, True])
def test_the_last_lap_is_the_whole_score(shared_prefixes, tasks, tokenizer, model):
    whole = make(model, tokenizer, tasks)
    scorer = make(model, tokenizer, tasks, blocks=4, shared_prefixes=shared_prefixes)
    seen = list(scorer.race())
    assert [scores.last for scores in seen] == [False, False, False, True]
    assert seen[-1].so_far == pytest.approx(whole.score(), abs=1e-6)
    assert scorer.score() == seen[-1].so_far
    assert seen[0].block == seen[0].so_far
    for name, values in scorer.items().items():
        np.testing.assert_allclose(values, whole.items()[name], atol=1e-5)


def test_every_block_has_an_equal_share_of_every_benchmark(tasks, tokenizer, model):
    scorer = make(model, tokenizer, tasks, blocks=4)
    counts = np.array(
        [list(scores.items.values()) for scores in scorer.race()]
    )  # (blocks, benchmarks)
    assert counts[-1].tolist() == [13, 13, 13, 18, 9]
    shares = np.diff(counts, axis=0, prepend=0)
    assert (shares.max(axis=0) - shares.min(axis=0) <= 1).all()
    (task,) = scorer._suite._units[scorer._keys["prose/bits_per_byte"]].tasks.values()
    assert sorted(place for block in task.blocks for place in block) == list(range(13))
    assert task.blocks[0] != [0, 4, 8, 12]  # shuffled
    again = make(model, tokenizer, tasks, blocks=4)
    (same,) = again._suite._units[again._keys["prose/bits_per_byte"]].tasks.values()
    assert same.blocks == task.blocks
    assert again.plan_digest() == scorer.plan_digest()
    other = make(model, tokenizer, tasks, blocks=4, seed=5)
    assert other.plan_digest() != scorer.plan_digest()


def test_a_block_is_scored_as_a_task_of_its_own(tasks, tokenizer, model):
    scorer = make(model, tokenizer, tasks, blocks=3)
    seen = list(scorer.race())
    (task,) = scorer._suite._units[scorer._keys["choice/acc"]].tasks.values()
    values = scorer.items()["choice/acc"]
    for block, scores in enumerate(seen):
        assert scores.block["choice/acc"] == pytest.approx(values[task.blocks[block]].mean())


def test_a_race_that_was_given_up_leaves_nothing_behind(tasks, tokenizer):
    model, other = make_model(seed=0), make_model(seed=1)
    scorer = make(model, tokenizer, tasks, blocks=3)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    wanted = list(scorer.race())
    race = scorer.race()
    next(race)
    with pytest.raises(RuntimeError, match="call score"):
        scorer.items()
    race.close()
    model.load_state_dict(other.state_dict())
    assert next(scorer.race()) != wanted[0]
    model.load_state_dict(start)
    assert list(scorer.race()) == wanted


def test_only_the_documents_of_a_block_are_computed(tasks, tokenizer, model, monkeypatch):
    scorer = make(model, tokenizer, tasks, blocks=4)
    seen = []
    run = scorer._lm.passes._logits_of
    monkeypatch.setattr(
        scorer._lm.passes, "_logits_of", lambda batch: seen.append(batch.shape[0]) or run(batch)
    )
    race = scorer.race()
    next(race)
    first = sum(seen)
    list(race)
    assert first < 0.4 * sum(seen)


def test_a_broken_proxy_races_with_nan(tasks, tokenizer, model):
    scorer = make(model, tokenizer, tasks, blocks=4)
    model.model.embed_tokens.weight.data.fill_(math.nan)
    scores = next(scorer.race())
    assert all(math.isnan(score) for score in (*scores.block.values(), *scores.so_far.values()))


def test_too_few_documents(tasks, tokenizer, model):
    with pytest.raises(TaskError, match="'say'.*has 9 documents, too few for 10 blocks"):
        make(model, tokenizer, tasks, blocks=10)
