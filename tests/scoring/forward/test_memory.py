"""Memory that runs out while scoring."""

from __future__ import annotations

import logging

import pytest
import torch

from optuna_demix.errors import TaskError
from optuna_demix.scoring import Benchmark, HarnessScorer

pytestmark = pytest.mark.xdist_group("scoring")

SOME = [
    Benchmark("prose", "bits_per_byte"),
    Benchmark("choice", "acc"),
    Benchmark("say", "exact_match,whole"),
]


class Small:
    """Makes a model run out of memory above so many tokens at once."""

    def __init__(self, model, tokens):
        self.tokens, self.forward, self.sizes = tokens, model.forward, []
        model.forward = self

    def __call__(self, input_ids, **options):
        self.sizes.append(tuple(input_ids.shape))
        if input_ids.numel() > self.tokens:
            raise torch.OutOfMemoryError("out of memory, as asked")
        return self.forward(input_ids, **options)


@pytest.mark.parametrize("shared_prefixes", [False, True])
def test_half_the_rows_are_scored_at_once(shared_prefixes, tasks, tokenizer, model, caplog):
    scorer = HarnessScorer(
        SOME, model, tokenizer, include_path=tasks, batch_size=8, shared_prefixes=shared_prefixes
    )
    wanted = scorer.score()
    small = Small(model, 150)  # the longest row has 48 tokens
    with caplog.at_level(logging.WARNING):
        assert scorer.score() == pytest.approx(wanted, abs=1e-6)
    assert any(rows * width > 150 for rows, width in small.sizes)
    assert "out of memory with 8 rows of" in caplog.text
    small.sizes.clear()
    caplog.clear()
    assert scorer.score() == pytest.approx(wanted, abs=1e-6)
    assert all(rows * width <= 150 for rows, width in small.sizes)  # it has learned its lesson
    assert not caplog.text


def test_a_single_row_that_does_not_fit_is_an_error(tasks, tokenizer, model):
    scorer = HarnessScorer(SOME[:1], model, tokenizer, include_path=tasks, batch_size=8)
    Small(model, 20)
    with pytest.raises(TaskError, match="one row of 48 tokens does not fit into memory; lower"):
        scorer.score()


def test_other_errors_are_not_taken_for_it(tasks, tokenizer, model):
    scorer = HarnessScorer(SOME[:1], model, tokenizer, include_path=tasks)

    def broken(*_args, **_options):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    model.forward = broken
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        scorer.score()
