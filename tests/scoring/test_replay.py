"""Scores of given log-likelihoods: lm-eval's own, and the same as known functions."""

from __future__ import annotations

import numpy as np
import pytest

from optuna_demix.errors import TaskError
from optuna_demix.scoring import Benchmark, HarnessScorer
from tests.scoring.samples import make_model

pytestmark = pytest.mark.xdist_group("scoring")

KNOWN = (
    ("prose", "bits_per_byte"),
    ("prose", "word_perplexity"),
    ("choice", "acc"),
    ("choice", "acc_norm"),
    ("blanks", "acc"),
    ("both", "acc"),
    ("cloze", "perplexity"),
    ("cloze", "bits_per_byte_gold"),
    ("choice", "bits_per_byte_gold"),
    ("say", "bits_per_byte_gold"),
)
UNKNOWN = (("surprise", "acc_mutual_info"), ("surprise", "brier_score"), ("choice", "f1"))


def scorer_of(tasks, tokenizer, model, names, **options) -> HarnessScorer:
    return HarnessScorer(
        [Benchmark(task, metric) for task, metric in names],
        model,
        tokenizer,
        include_path=tasks,
        batch_size=4,
        **options,
    )


def log_likelihoods(replay) -> np.ndarray:
    tokens, counts = replay.token_log_probabilities(), replay.token_counts()
    ends = np.cumsum([0, *counts])
    return np.array([tokens[a:b].sum() for a, b in zip(ends, ends[1:], strict=False)])


@pytest.mark.parametrize("options", [{}, {"blocks": 2}, {"shared_prefixes": True}])
def test_a_models_own_tokens_give_its_own_scores(tasks, tokenizer, model, options) -> None:
    scorer = scorer_of(tasks, tokenizer, model, [*KNOWN, *UNKNOWN], **options)
    scores = scorer.score()
    replay = scorer.replay()
    assert replay.scores(log_likelihoods(replay)) == pytest.approx(scores, rel=1e-5)


def test_other_weights_give_other_tokens_in_the_same_order(tasks, tokenizer, model) -> None:
    scorer = scorer_of(tasks, tokenizer, model, KNOWN)
    replay = scorer.replay()
    before = log_likelihoods(replay)
    model.load_state_dict(make_model(seed=3).state_dict())
    after = log_likelihoods(replay)
    assert not np.allclose(before, after)
    assert replay.scores(after) == pytest.approx(scorer.score(), rel=1e-5)


@pytest.mark.parametrize("options", [{}, {"blocks": 2}])
def test_known_functions_are_what_lm_eval_gives(tasks, tokenizer, model, options) -> None:
    replay = scorer_of(tasks, tokenizer, model, [*KNOWN, *UNKNOWN], **options).replay()
    rng = np.random.default_rng(1)
    n = len(replay.token_counts())
    functions = replay.functions(-rng.uniform(1, 30, (2, n)))
    assert set(functions) == {f"{task}/{metric}" for task, metric in KNOWN}
    samples = -rng.uniform(1, 30, (5, n))
    many = {name: function(samples) for name, function in functions.items()}
    for row, sample in enumerate(samples):
        theirs = replay.scores(sample)
        for name, values in many.items():
            assert values[row] == pytest.approx(theirs[name], rel=1e-12)


def test_a_function_that_is_not_lm_evals_is_dropped(
    tasks, tokenizer, model, monkeypatch: pytest.MonkeyPatch
) -> None:
    from optuna_demix.scoring.functions import Choice, Linear

    names = [("prose", "bits_per_byte"), ("choice", "acc")]
    replay = scorer_of(tasks, tokenizer, model, names).replay()
    samples = np.empty((0, len(replay.token_counts())))
    assert len(replay.functions(samples)) == 2
    wrong = 1.0 + 1e-6
    linear, choice = Linear.__call__, Choice.__call__
    monkeypatch.setattr(Linear, "__call__", lambda self, x: linear(self, x) * wrong)
    monkeypatch.setattr(Choice, "__call__", lambda self, x: choice(self, x) + 1e-6)
    assert replay.functions(samples) == {}


def test_slopes_are_the_derivatives_of_smooth_scores(tasks, tokenizer, model) -> None:
    replay = scorer_of(tasks, tokenizer, model, KNOWN).replay()
    rng = np.random.default_rng(2)
    point = -rng.uniform(1, 3, len(replay.token_counts()))
    direction = rng.standard_normal(len(point))
    step = 1e-6 * direction
    functions = replay.functions(point[None])
    smooth = {name: f for name, f in functions.items() if f.smooth}
    assert set(functions) - set(smooth) == {
        "choice/acc", "choice/acc_norm", "blanks/acc", "both/acc"
    }  # fmt: skip
    for function in smooth.values():
        change = function((point + step)[None]) - function((point - step)[None])
        assert function.slopes(point) @ direction == pytest.approx(change[0] / 2e-6, rel=1e-5)


@pytest.mark.parametrize(
    ("task", "metric", "said"),
    [
        ("say", "exact_match,whole", "text that a model writes"),
        ("own", "hit", "text that a model writes"),
        ("cloze", "acc", "finds likeliest"),
        ("choice", "exact_match", "finds likeliest"),
    ],
)
def test_what_needs_more_than_log_likelihoods_is_refused_by_name(
    tasks, tokenizer, model, task: str, metric: str, said: str
) -> None:
    names = [("prose", "bits_per_byte"), ("cloze", "perplexity"), (task, metric)]
    scorer = scorer_of(tasks, tokenizer, model, names)
    with pytest.raises(TaskError, match=f"benchmark '{task}/{metric}'.*{said}") as error:
        scorer.replay()
    assert "\n" not in str(error.value)


def test_a_replay_makes_way_for_the_next_score(tasks, tokenizer, model) -> None:
    scorer = scorer_of(tasks, tokenizer, model, KNOWN)
    scores = scorer.score()
    replay = scorer.replay()
    with pytest.raises(RuntimeError, match="nothing has been scored"):
        scorer.items()
    replay.scores(np.full(len(replay.token_counts()), -2.0))
    assert scorer.score() == scores
