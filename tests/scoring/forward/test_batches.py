"""The batch layout against lm-eval's own, on requests that no task would make."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from optuna_demix.scoring.forward.batches import plan_batches
from optuna_demix.scoring.forward.passes import Passes

from tests.scoring.samples import make_model  # isort: skip

pytestmark = pytest.mark.xdist_group("scoring")

# One sequence cut at different places with different last tokens: such requests share a row.
_CUTS = st.tuples(
    st.sampled_from([[1, 2, 3, 4, 5, 6], [1, 2, 3], [9, 9]]), st.integers(1, 6), st.integers(0, 3)
).map(lambda drawn: (drawn[0][: drawn[1]], [*drawn[0][drawn[1] :], drawn[2]]))
_IDS = st.lists(st.integers(0, 3), min_size=1, max_size=5)
_PAIRS = st.one_of(_CUTS, st.tuples(_IDS, _IDS))


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def peer(request, tokenizer):
    from lm_eval.models.huggingface import HFLM

    model, own = make_model(dtype=request.param), copy.deepcopy(tokenizer)  # HFLM adds padding
    return HFLM(pretrained=model, tokenizer=own, batch_size=3, max_length=8)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(pairs=st.lists(_PAIRS, min_size=1, max_size=20))
@example(pairs=[([1, 2], [3, 4, 0]), ([1, 2, 3], [4, 1]), ([1, 2, 3, 4], [2])])
def test_any_requests(peer, pairs):
    requests = [(None, context, continuation) for context, continuation in pairs]
    wanted = peer._loglikelihood_tokens(requests, disable_tqdm=True)
    batches = plan_batches(pairs, batch_size=3, max_length=8)
    for greedy in (True, False):
        with torch.inference_mode():
            passes = Passes(lambda batch: peer.model(batch.inputs).logits)
            sums, matches = passes.run(batches, count=len(pairs), greedy=greedy)
        assert sums == [value for value, _ in wanted]
        assert matches == [match and greedy for _, match in wanted]


def test_greedy_answers_are_found(peer):
    def likeliest(ids):
        with torch.inference_mode():
            return int(peer.model(torch.tensor([ids])).logits[0, -1].argmax())

    chains = (
        (c, likeliest(c), likeliest([*c, likeliest(c)])) for c in ([1, 2, i] for i in range(99))
    )
    context, best, then = next(chain for chain in chains if chain[1] != chain[2])
    pairs = [
        (context, [best]),
        (context, [(best + 1) % 320]),
        (context, [best, then]),
        ([*context, best], [then]),  # shares the row of the one before
    ]
    requests = [(None, *pair) for pair in pairs]
    with torch.inference_mode():
        passes = Passes(lambda batch: peer.model(batch.inputs).logits)
        batches = plan_batches(pairs, batch_size=3, max_length=8)
        _, matches = passes.run(batches, count=4, greedy=True)
    assert matches == [True, False, True, True]
    assert matches == [m for _, m in peer._loglikelihood_tokens(requests, disable_tqdm=True)]


def test_one_row_for_answers_of_one_token():
    pairs = [([5, 6], [token]) for token in range(4)] + [([5], [6, 7])]
    (batch,) = plan_batches(pairs, batch_size=8, max_length=8)
    assert batch.inputs.tolist() == [[5, 6]]
    assert sorted(batch.readout.requests) == [0, 1, 2, 3, 4]
    assert batch.readout.positions.tolist() == [0, 1]


def test_rows_are_sorted_padded_and_cut():
    pairs = [([1], [2]), ([1, 2, 3, 4, 5, 6], [7]), ([1, 2], [3])]
    first, second = plan_batches(pairs, batch_size=2, max_length=4, first_request=10)
    assert first.inputs.tolist() == [[3, 4, 5, 6], [1, 2, 0, 0]]
    assert second.inputs.tolist() == [[1]]
    assert [b.readout.requests for b in (first, second)] == [(11, 12), (10,)]
