"""Sizes that follow from others where nobody names them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optuna_demix.errors import InputError
from optuna_demix.starting.sizes import (
    batch_of,
    in_words,
    learning_rate,
    llama_of,
    read_number,
    rounded,
    sequence_of,
)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("640", 640),
        ("150M", 150e6),
        ("1.5e9", 1.5e9),
        ("100 B", 1e11),
        ("2_000k", 2e6),
        ("1t", 1e12),
    ],
)
def test_numbers_are_read_as_people_write_them(text: str, number: float) -> None:
    assert read_number(text) == number


@pytest.mark.parametrize(
    "text", ["", "0", "-3", "1e-3", "many", "1.2.3", "5 %", "e9", "nan", "1e99"]
)
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write it as 150M"):
        read_number(text)


@pytest.mark.parametrize(
    ("parameters", "vocabulary"),
    [
        (8_000, 320),
        (100_000, 320),
        (5_000_000, 8_192),
        (150_000_000, 50_257),
        (7 * 10**9, 128_256),
    ],
)
def test_a_llama_has_the_parameters_that_transformers_counts(
    parameters: int, vocabulary: int
) -> None:
    torch = pytest.importorskip("torch")
    from transformers import AutoConfig, AutoModelForCausalLM

    fields, said = llama_of(parameters, vocabulary, 64)
    kind = fields.pop("model_type")
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(kind, vocab_size=vocabulary, **fields)
        )
    assert model.num_parameters() == said
    assert 1 / 1.3 < said / parameters < 1.3


def test_a_vocabulary_that_is_larger_than_the_model_is_refused() -> None:
    with pytest.raises(InputError, match="--parameters 10 k: .* vocabulary of 50,257"):
        llama_of(10_000, 50_257, 64)


@given(st.integers(1, 10**12), st.sampled_from([None, 32, 1000, 8192]))
def test_sequences_and_steps_fit(tokens: int, longest: int | None) -> None:
    sequence = sequence_of(longest, tokens)
    assert 8 <= sequence <= min(1024, longest or 1024)
    assert sequence == 8 or 8 * sequence <= tokens
    batch = batch_of(tokens, sequence)
    assert 1 <= batch <= 32 and (batch == 1 or tokens >= 100 * batch * sequence)


def test_the_learning_rate_falls_with_the_size() -> None:
    rates = [learning_rate(n) for n in (10**4, 10**7, 1_700_000_000, 7 * 10**10)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == 3e-3 and rates[2] == 3e-4


def test_estimates_are_rounded_and_told_in_words() -> None:
    assert [rounded(n) for n in (0, 7, 1234, 8_023_456_789)] == [0, 7, 1230, 8_020_000_000]
    assert [in_words(n) for n in (640, 7728, 8.02e9, 999_700, 5e15)] == [
        *("640", "7.73 k", "8.02 B", "1 M", "5e+03 T")
    ]
