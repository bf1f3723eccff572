"""The errors that are raised for users, and which of them are mistakes in what was given."""

from __future__ import annotations

import pickle

import pytest

from optuna_demix import errors
from optuna_demix.errors import DemixError

ALL = [kind for kind in vars(errors).values() if isinstance(kind, type)]


def test_every_error_can_be_caught_at_once() -> None:
    assert len(ALL) > 5
    assert all(issubclass(kind, DemixError) for kind in ALL)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_only_mistakes_in_arguments_and_files_are_value_errors(kind: type[DemixError]) -> None:
    """A lost storage was one as well, so ``except ValueError`` around an argument hid it."""
    others = {"DemixError", "StorageLostError"}
    assert issubclass(kind, ValueError) is (kind.__name__ not in others)


def test_a_lost_storage_is_no_mistake_in_a_study() -> None:
    assert not issubclass(errors.StorageLostError, errors.StudyError)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_errors_travel_between_processes(kind: type[DemixError]) -> None:
    copy = pickle.loads(pickle.dumps(kind("line")))
    assert type(copy) is kind and str(copy) == "line"
