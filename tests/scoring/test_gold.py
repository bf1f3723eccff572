"""Bits per byte of the right answer."""

from __future__ import annotations

import math

import pytest

from optuna_demix.errors import TaskError
from optuna_demix.scoring import Benchmark, HarnessScorer, check_tasks

pytestmark = pytest.mark.xdist_group("scoring")

GOLD = "bits_per_byte_gold"


def by_hand(model, tokenizer, pairs):
    """Negated bits per byte of (context, continuation) pairs, asked of HFLM one by one."""
    import copy

    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    lm = HFLM(pretrained=model, tokenizer=copy.deepcopy(tokenizer), batch_size=1)
    requests = [Instance("loglikelihood", {}, pair, 0) for pair in pairs]
    nats = sum(value for value, _ in lm.loglikelihood(requests, disable_tqdm=True))
    return nats / sum(len(text.encode()) for _, text in pairs) / math.log(2)


def documents(scorer, name):
    (task,) = scorer._suite._units[scorer._keys[name]].tasks.values()
    return [document for document, _ in task.documents]


@pytest.mark.parametrize("shots", [0, 2])
def test_multiple_choice(shots, tasks, tokenizer, model):
    both = [Benchmark("choice", GOLD, name="gold"), Benchmark("choice", "acc")]
    options = {"include_path": tasks, "batch_size": 4, "num_fewshot": shots}
    scorer = HarnessScorer(both, model, tokenizer, **options)
    (task,) = scorer._suite._units[scorer._keys["gold"]].tasks.values()
    pairs = [
        (instances[doc["gold"]].args[0], f" {doc['choices'][doc['gold']]}")
        for doc, instances in task.documents
    ]
    scores = scorer.score()
    assert scores["gold"] == pytest.approx(by_hand(model, tokenizer, pairs), abs=1e-5)
    # The same requests serve accuracy; alone, three of four answers need not be scored at all.
    assert scorer.describe()["requests"] == {"loglikelihood": 52}
    alone = HarnessScorer(both[:1], model, tokenizer, **options)
    assert alone.describe()["requests"] == {"loglikelihood": 13}
    assert alone.score()["gold"] == pytest.approx(scores["gold"], abs=1e-6)
    items, weights = alone.items()["gold"], alone.item_weights()["gold"]
    assert len(items) == 13
    assert weights @ items == pytest.approx(scores["gold"])
    assert alone.standard_errors()["gold"] > 0


def test_generation_is_left_out_where_only_the_answer_is_read(tasks, tokenizer, model):
    gold = Benchmark("say", GOLD)
    scorer = HarnessScorer([gold], model, tokenizer, include_path=tasks, batch_size=4)
    assert scorer.describe()["requests"] == {"loglikelihood": 9}
    score = scorer.score()[gold.name]
    pairs = [(d["prompt"], f" {d['answer']}") for d in documents(scorer, gold.name)]
    assert score == pytest.approx(by_hand(model, tokenizer, pairs), abs=1e-5)
    both = HarnessScorer(
        [gold, Benchmark("say", "exact_match,whole")], model, tokenizer, include_path=tasks
    )
    assert both.describe()["requests"] == {"generate_until": 9, "loglikelihood": 9}
    assert both.score()[gold.name] == pytest.approx(score, abs=1e-6)


def test_other_benchmarks_keep_their_bits(tasks, tokenizer, model, oracle):
    some = [Benchmark("say", "exact_match,first-letter"), Benchmark("say", GOLD)]
    scorer = HarnessScorer(some, model, tokenizer, include_path=tasks, batch_size=4)
    peer = oracle(model, ["say"])["say"]["exact_match,first-letter"]
    assert scorer.score()["say/exact_match,first-letter"] == peer


def test_where_there_is_no_right_answer(tasks, tokenizer, model, tmp_path):
    (said,) = check_tasks([Benchmark("prose", GOLD)], include_path=tasks)
    assert "has no metric 'bits_per_byte_gold', only bits_per_byte" in str(said)
    (said,) = check_tasks([Benchmark("both", GOLD)], include_path=tasks)
    assert "has no metric 'bits_per_byte_gold', only acc" in str(said)
    (said,) = check_tasks([Benchmark("say", f"{GOLD},whole")], include_path=tasks)
    assert "no filter 'whole'" in str(said)
    rows = ['{"q": "the", "c": ["a", "b"], "gold": 1}', '{"q": "a", "c": ["a", "b"], "gold": 7}']
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    (tmp_path / "odd.yaml").write_text(
        f"""
task: odd
dataset_path: json
dataset_kwargs: {{data_files: {{test: {tmp_path}/rows.jsonl}}}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{q}}}}"
doc_to_choice: "{{{{c}}}}"
doc_to_target: gold
""".lstrip()
    )
    with pytest.raises(TaskError, match="task 'odd', document 1: .* 7 is none of the choices"):
        HarnessScorer([Benchmark("odd", GOLD)], model, tokenizer, include_path=tmp_path)
