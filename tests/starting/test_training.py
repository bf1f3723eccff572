"""How much components are trained, and how, where the user does not say it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from optuna_demix.errors import ConstraintError, InputError
from optuna_demix.starting.making import Wishes, _mixture
from optuna_demix.starting.training import Start, Tokenizer, start_of, training_of

TOKENIZER = Tokenizer(Path("tokenizer"), 320, lambda texts: [[0]] * len(texts))
SIZES = {"web": 10**9, "code": 10**6}


def training(sizes: dict[str, int], *, is_there: bool = True, **given: Any) -> tuple[Any, str]:
    """The fields, and what is said of them, for a base of 100 k parameters."""
    start = Start(TOKENIZER, 100_000, 128, is_there=is_there)
    wishes = {"general": None, "component_tokens": None, "base_tokens": None, **given}
    entries, notes = training_of(start, sizes, folder=Path("."), **wishes)
    return {name: entry.value for name, entry in entries.items()}, "\n".join(notes)


def test_components_get_six_tokens_a_parameter() -> None:
    fields, said = training(SIZES)
    assert fields["component"] == {"tokens": 600_000, "learning_rate": 3e-3}
    assert "trained on 600 k tokens, 6 tokens a parameter" in said and "small" not in said
    assert "model" not in fields and "base" not in fields


def test_scarce_text_is_repeated_four_times_or_as_often_as_it_must_be() -> None:
    fields, said = training({"web": 10**9, "code": 50_000})
    assert fields["component"]["tokens"] == 200_000 and "small" not in said
    half, _ = training({"web": 10**9, "code": 50_000}, general="web")
    assert half["component"]["tokens"] == 400_000  # half of them are of web
    fields, said = training({"web": 10**9, "code": 10_000})
    assert fields["component"]["tokens"] == 100_000  # one for each parameter
    assert "code is small: training repeats it 10 times" in said


def test_a_base_from_nothing_gets_twenty_and_its_sizes() -> None:
    fields, _ = training(SIZES, is_there=False)
    assert fields["base"]["learning_rate"] == 2 * fields["component"]["learning_rate"]
    assert fields["model"]["max_position_embeddings"] == fields["sequence_length"] == 128
    assert 1.4e6 < float(fields["base"]["tokens"]) < 2.6e6
    named, _ = training(SIZES, is_there=False, base_tokens=5000, component_tokens=4000)
    assert (named["base"]["tokens"], named["component"]["tokens"]) == (5000, 4000)


def test_a_run_shorter_than_a_sequence_is_refused() -> None:
    with pytest.raises(InputError, match="trained on 100 tokens, less than one sequence of 128"):
        training(SIZES, component_tokens=100)
    with pytest.raises(InputError, match="give --tokens NAME=N for each"):
        training({})


def test_components_need_something_to_start_from() -> None:
    with pytest.raises(InputError, match="--base DIR, or --tokenizer DIR and --parameters N"):
        start_of(None, Path("tokenizer"), None)
    with pytest.raises(InputError, match="leave it or --base out"):
        start_of(Path("base"), None, 10**6)


def test_caps_follow_from_tokens_and_budget() -> None:
    mixture, said = _mixture(Wishes(budget=10**8), SIZES, list(SIZES))
    assert {name: entry.value for name, entry in mixture.items()} == {
        "budget": "1e8",
        "max_epochs": 4,
    }
    assert mixture["max_epochs"].note == "caps data shares: code 0.04" and said == []


def test_a_dataset_of_unknown_size_has_no_cap() -> None:
    names = [*SIZES, "books"]
    mixture, said = _mixture(Wishes(budget=10**8, max_epochs=2), SIZES, names)
    assert mixture["max_epochs"].value == {"web": 2, "code": 2}
    assert said == ["no --tokens of books: their shares have no caps"]
    assert list(_mixture(Wishes(budget=10**8), {}, names)[0]) == ["budget"]
    assert _mixture(Wishes(), SIZES, names)[0] == {}


def test_a_budget_beyond_all_text_is_refused() -> None:
    _mixture(Wishes(budget=4 * 10**9), SIZES, list(SIZES))
    with pytest.raises(ConstraintError, match="--budget 4.1 B: the data have 1 B tokens"):
        _mixture(Wishes(budget=41 * 10**8), SIZES, list(SIZES))
