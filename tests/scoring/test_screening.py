"""Texts that are put off, and the likelihood of the right answers in their place."""

from __future__ import annotations

import math

import pytest

from optuna_demix.errors import TaskError
from optuna_demix.scoring import Benchmark, HarnessScorer, Screening, check_tasks

from tests.scoring.samples import make_model  # isort: skip

pytestmark = pytest.mark.xdist_group("scoring")

SOME = [
    Benchmark("choice", "acc"),
    Benchmark("say", "exact_match,whole"),
    Benchmark("prose", "bits_per_byte"),
]


def make(model, tokenizer, tasks, *, more=(), screening=None):
    return HarnessScorer(
        [*SOME, *more], model, tokenizer, include_path=tasks, batch_size=4, screening=screening
    )


def test_texts_come_second_and_scores_are_the_same(tasks, tokenizer, model):
    gold = Benchmark("say", "bits_per_byte_gold")
    plain = make(model, tokenizer, tasks, more=[gold])
    wanted = plain.score()
    scorer = make(model, tokenizer, tasks, screening=Screening())
    told = []
    scorer.watch(lambda written, expected: told.append((written, expected)))
    first = scorer.score_cheaply()
    assert {written for written, _ in told} == {0}
    assert set(first.scores) == {"choice/acc", "prose/bits_per_byte"}
    assert first.cheap == {"say/exact_match,whole": pytest.approx(wanted[gold.name], abs=1e-6)}
    with pytest.raises(RuntimeError, match="call score"):
        scorer.items()
    found = scorer.score_screened()
    assert found == {b.name: pytest.approx(wanted[b.name], abs=1e-6) for b in SOME}
    assert 0 < told[-1][0] <= told[-1][1]
    assert scorer.score() == found
    assert told[-1][0] == told[-1][1]  # texts are as long as the last time
    assert scorer.items().keys() == {b.name for b in SOME}
    assert make(model, tokenizer, tasks).plan_digest() != scorer.plan_digest()


def test_another_model_starts_anew(tasks, tokenizer):
    model, other = make_model(seed=0), make_model(seed=1)
    scorer = make(model, tokenizer, tasks, screening=Screening(("say/exact_match,whole",)))
    scorer.score()
    model.load_state_dict(other.state_dict())
    cheap = scorer.score_cheaply().cheap
    assert cheap == make(other, tokenizer, tasks, screening=Screening()).score_cheaply().cheap
    with_nan = next(model.parameters())
    with_nan.data[:] = math.nan
    assert math.isnan(scorer.score_cheaply().cheap["say/exact_match,whole"])


@pytest.mark.parametrize(
    ("screening", "said"),
    [
        (Screening(("choice/acc",)), "'choice/acc' generates no texts that could be spared"),
        (Screening(("sya",)), "scoring.screen.benchmarks: .*'sya'"),
        (Screening(answers={"sya": "answer"}), "scoring.screen.answers: .*'sya'"),
    ],
)
def test_what_cannot_be_screened(screening, said, tasks):
    (problem,) = check_tasks(SOME, include_path=tasks, screening=screening)
    with pytest.raises(TaskError, match=said):
        raise problem
    (problem,) = check_tasks(SOME[:1], include_path=tasks, screening=Screening())
    assert "no benchmark generates texts" in str(problem)


def test_all_benchmarks_of_the_same_texts_are_screened_together(tasks, tokenizer, model):
    both = Benchmark("say", "exact_match,whole", name="again")
    screening = Screening(("say/exact_match,whole",))
    with pytest.raises(TaskError, match="'again' reads texts of a screened benchmark"):
        make(model, tokenizer, tasks, more=[both], screening=screening)


def test_a_field_may_hold_the_right_answer(tasks, tokenizer, model):
    name = "say/exact_match,whole"
    screening = Screening(answers={name: "no such field"})
    with pytest.raises(TaskError, match="has no field 'no such field' with the right answer"):
        make(model, tokenizer, tasks, screening=screening)
