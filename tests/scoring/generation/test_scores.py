"""Scores of tasks that ask for texts are those of ``simple_evaluate``."""

from __future__ import annotations

import json

import pytest

from optuna_demix.scoring import Benchmark, HarnessScorer

from tests.scoring.generation.samples import HELPERS, TASK, talker, texts  # isort: skip

pytestmark = pytest.mark.xdist_group("scoring")

TASKS = {
    "several": '{until: ["night", "\\n", " t", "z"], max_gen_toks: 24}',
    "inside": '{until: ["igh", "oco"], max_gen_toks: 24}',
    "short": "{until: [], max_gen_toks: 3}",
    "empty": '{until: ["n", "b", "c", "o", "g", "e", "t", "a", "#"], max_gen_toks: 9}',
    "truncated": '{until: ["night"], max_gen_toks: 30}',
    "sampled": "{until: [], max_gen_toks: 5, do_sample: true, temperature: 1.0}",
}
OPTIONS = {"batch_size": 4, "max_length": 60}
BENCHMARKS = [Benchmark(name, metric) for name in TASKS for metric in ("letters", "length")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("texts")
    rows = [{"prompt": text, "answer": "moon"} for text in texts(10)]
    (made / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (made / "helpers.py").write_text(HELPERS)
    for name, arguments in TASKS.items():
        (made / f"{name}.yaml").write_text(TASK.format(name=name, arguments=arguments))
    return made


def scores_of(results):
    return {f"{b.name}": results[b.task][f"{b.metric},none"] for b in BENCHMARKS}


def test_scores_are_simple_evaluates(folder, tokenizer, oracle):
    live = talker()
    options = {"include_path": folder, **OPTIONS}
    scorer = HarnessScorer(BENCHMARKS, live, tokenizer, **options)
    plain = HarnessScorer(BENCHMARKS, live, tokenizer, generation="hf", **options)
    assert scorer.describe()["generation"] == {"greedy loop": 60, "lm-eval": 12}
    assert plain.describe()["generation"] == {"lm-eval": 72}
    assert scorer.plan_digest() != plain.plan_digest()
    for seed in (0, 1):
        live.load_state_dict(talker(seed=seed).state_dict())
        wanted = scores_of(oracle(live, list(TASKS), **options))
        assert scorer.score() == wanted
    assert plain.score() == wanted
    assert len(set(wanted.values())) == len(wanted)


def test_examples_that_all_prompts_share_and_blocks(folder, tokenizer):
    live = talker()
    some = BENCHMARKS[:4]
    options = {"include_path": folder, "num_fewshot": 1, "batch_size": 4}
    scorer = HarnessScorer(some, live, tokenizer, blocks=4, **options)
    plain = HarnessScorer(some, live, tokenizer, generation="hf", **options)
    for seed in (0, 1):
        live.load_state_dict(talker(seed=seed).state_dict())
        *_, last = scorer.race()
        assert last.so_far == pytest.approx(plain.score())


def test_without_texts_it_does_not_matter_who_would_write_them(tasks, tokenizer, model):
    digests = {
        HarnessScorer(
            [Benchmark("choice", "acc")], model, tokenizer, include_path=tasks, generation=way
        ).plan_digest()
        for way in ("auto", "hf")
    }
    assert len(digests) == 1
