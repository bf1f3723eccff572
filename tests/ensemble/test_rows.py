"""Files of token log-probabilities: whole or not there, shared, rebuilt where they are damaged."""

from __future__ import annotations

import errno
import threading
from pathlib import Path

import numpy as np
import pytest

from optuna_demix import _files
from optuna_demix.ensemble import RowStore
from optuna_demix.errors import ComponentError, DemixError

DIGESTS = {"web": "a1", "code": "b2"}


class Scorer:
    """Counts what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, name: str) -> np.ndarray:
        self.asked.append(name)
        return np.full(5, -float(len(name)), dtype=np.float32)


def test_what_is_there_is_not_scored_again(tmp_path: Path) -> None:
    store, scorer, said = RowStore(tmp_path / "plan", 5), Scorer(), []
    rows = store.complete(DIGESTS, scorer, report=said.append)
    assert {name: row.tolist() for name, row in rows.items()} == {
        "web": [-3.0] * 5,
        "code": [-4.0] * 5,
    }
    assert all(isinstance(row, np.memmap) for row in rows.values())
    assert said == [f"scoring component {name} for its token probabilities" for name in DIGESTS]
    store.complete({**DIGESTS, "math": "c3"}, scorer)
    assert scorer.asked == ["web", "code", "math"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(file.read_bytes()[:-4]),
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(b"not an array at all" * 20),
        lambda file: np.save(file, np.zeros(4, dtype=np.float32)),
        lambda file: np.save(file, np.zeros(5)),
        lambda file: np.save(file, np.array([None] * 5), allow_pickle=True),
    ],
)
def test_a_damaged_row_is_made_again(tmp_path: Path, damage) -> None:
    store, scorer = RowStore(tmp_path, 5), Scorer()
    store.complete(DIGESTS, scorer)
    damage(store.file("a1"))
    assert store.read("a1") is None
    rows = store.complete(DIGESTS, scorer)
    assert scorer.asked == ["web", "code", "web"]
    assert rows["web"].tolist() == [-3.0] * 5


def test_a_build_that_stops_is_gone_on_with(tmp_path: Path) -> None:
    store, scorer = RowStore(tmp_path, 5), Scorer()

    def stops(name: str) -> np.ndarray:
        if name == "code":
            raise KeyboardInterrupt
        return scorer(name)

    with pytest.raises(KeyboardInterrupt):
        store.complete(DIGESTS, stops)
    assert store.read("a1") is not None and store.read("b2") is None
    aside = store.file("b2").with_suffix(".partial")
    aside.write_bytes(b"half of")  # as a process killed while it writes leaves it
    store.complete(DIGESTS, scorer)
    assert scorer.asked == ["web", "code"]
    assert not aside.exists()


def test_two_builders_share_the_work(tmp_path: Path) -> None:
    """The second takes the component that the first has not taken, and waits for the other."""
    first_has_web, second_has_code = threading.Event(), threading.Event()

    def first(name: str) -> np.ndarray:
        assert name == "web"
        first_has_web.set()
        assert second_has_code.wait(60)
        return np.zeros(5, dtype=np.float32)

    def second(name: str) -> np.ndarray:
        assert name == "code"
        second_has_code.set()
        return np.ones(5, dtype=np.float32)

    found = {}

    def work() -> None:
        found["first"] = RowStore(tmp_path, 5).complete(DIGESTS, first)

    thread = threading.Thread(target=work)
    thread.start()
    assert first_has_web.wait(60)
    found["second"] = RowStore(tmp_path, 5).complete(DIGESTS, second)
    thread.join()
    for rows in found.values():
        assert rows["web"].tolist() == [0.0] * 5 and rows["code"].tolist() == [1.0] * 5


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_values_that_are_not_finite_name_their_component(tmp_path: Path, value: float) -> None:
    store = RowStore(tmp_path, 5)
    bad = np.array([-1, -1, value, -1, -1], dtype=np.float32)
    with pytest.raises(ComponentError, match="component 'code' gives log-prob.* not finite"):
        store.complete(DIGESTS, lambda name: bad if name == "code" else np.zeros(5, np.float32))
    assert store.read("a1") is not None and store.read("b2") is None


def test_a_full_disk_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(_files.os, "fsync", full)
    store = RowStore(tmp_path, 5)
    with pytest.raises(DemixError, match="cannot be written .*No space left"):
        store.complete(DIGESTS, Scorer())
    assert not [file for file in tmp_path.iterdir() if not file.name.endswith(".lock")]
