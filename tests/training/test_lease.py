from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from optuna_demix._process_id import name_of, own_name
from optuna_demix.training import _lease
from optuna_demix.training._lease import Lease, LeaseLostError, holder_of


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / ".partial" / ".code.lease"


@contextmanager
def process(name: str) -> Iterator[None]:
    """Within the block leases are taken as by another process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_lease, "own_name", lambda: name)
        yield


def taken(place: Path, name: str = "elsewhere 0a1b2c3d 7") -> Lease:
    with process(name):
        lease = Lease.take(place)
    assert lease is not None
    return lease


def make_old(place: Path) -> None:
    (file,) = place.iterdir()
    then = file.stat().st_mtime - _lease.STALE_S - 1
    os.utime(file, (then, then))


class TestTaking:
    def test_one_process_holds_it_until_it_gives_it_back(self, place: Path) -> None:
        with taken(place):
            assert Lease.take(place) is None
            assert holder_of(place) == "process 7 of elsewhere"
        assert holder_of(place) is None
        with Lease.take(place) as lease:  # type: ignore[union-attr]
            assert lease is not None and Lease.take(place) is None
            assert holder_of(place) == f"process {os.getpid()} of {own_name().split()[0]}"

    @pytest.mark.parametrize("held", [False, True], ids=["free", "of a holder that is silent"])
    def test_one_of_many_gets_it(self, place: Path, held: bool) -> None:
        for _ in range(20):
            first = taken(place) if held else None
            if held:
                make_old(place)
            got: list[Lease | None] = []
            start = threading.Barrier(8)

            def take(start: threading.Barrier = start, got: list[Any] = got) -> None:
                start.wait()
                got.append(Lease.take(place))

            threads = [threading.Thread(target=take) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            (lease,) = filter(None, got)
            assert lease.holds() and (first is None or not first.holds())
            lease.release()

    def test_a_dead_process_of_this_host_holds_nothing(self, place: Path) -> None:
        done = subprocess.Popen([sys.executable, "-SEc", ""])
        done.wait()
        lease = taken(place, name_of(done.pid))
        assert holder_of(place) is None
        with Lease.take(place) as ours:  # type: ignore[union-attr]
            assert ours is not None and not lease.holds()

    def test_a_living_process_of_this_host_holds_it(self, place: Path) -> None:
        lease = taken(place, name_of(os.getppid()))
        assert Lease.take(place) is None and lease.holds()

    def test_who_had_our_process_id_before_is_dead(self, place: Path) -> None:
        """The first process of a container has the same one after each start."""
        place.mkdir(parents=True)
        (place / f"{own_name()},0123456789abcdef,3").touch()
        assert holder_of(place) is None
        with Lease.take(place) as lease:  # type: ignore[union-attr]
            assert lease is not None

    def test_a_holder_elsewhere_is_silent_by_the_clock_of_the_disk(
        self, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lease = taken(place)
        monkeypatch.setattr(time, "time", lambda: 2.0**40)  # a host's own clock says nothing
        assert Lease.take(place) is None
        make_old(place)
        with Lease.take(place) as ours:  # type: ignore[union-attr]
            assert ours is not None and not lease.holds()

    def test_one_that_was_renewed_meanwhile_is_not_taken(
        self, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lease = taken(place)

        def renewed(place: Path, name: str) -> bool:
            lease.check()
            return True

        monkeypatch.setattr(_lease, "_may_be_taken", renewed)
        assert Lease.take(place) is None
        assert lease.holds()

    def test_other_files_beside_it_are_nothing(self, place: Path) -> None:
        taken(place).release()
        (place / ".nfs0001").touch()
        with taken(place):
            assert Lease.take(place) is None

    def test_one_that_somebody_deleted_is_made_again(self, place: Path) -> None:
        lease = taken(place)
        for file in place.iterdir():
            file.unlink()
        with taken(place, "host 0a1b2c3d 8"):
            assert not lease.holds()
        assert [file.name for file in place.parent.iterdir()] == [place.name]


class TestHolding:
    def test_who_lost_it_is_told_and_leaves_it_alone(self, place: Path) -> None:
        lease = taken(place)
        make_old(place)
        with taken(place, "host 0a1b2c3d 8") as other:
            with pytest.raises(LeaseLostError):
                lease.check()
            lease.release()
            assert lease.is_lost() and other.holds()

    def test_it_is_renewed_until_it_is_given_back(
        self, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(_lease, "RENEW_S", 0.001)
        lease = taken(place)
        seen: set[str] = set()
        while len(seen) < 3:
            seen.update(os.listdir(place))
        lease.release()
        assert os.listdir(place) == ["free"]

    def test_a_disk_that_fails_for_a_moment_costs_nothing(
        self, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(_lease, "RENEW_S", 0.001)
        rename, failed = os.rename, threading.Event()

        def fails_once(old: Path, new: Path) -> None:
            if "," in old.name and not failed.is_set():
                failed.set()
                raise OSError(5, "Input/output error", str(old))
            rename(old, new)

        monkeypatch.setattr(os, "rename", fails_once)
        with taken(place) as lease:
            assert failed.wait(60)
            assert not lease.is_lost() and lease.holds()

    def test_a_holder_that_could_not_renew_asks_the_disk(
        self, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As a process does that was stopped for a while."""
        lease = taken(place)
        make_old(place)
        with taken(place, "host 0a1b2c3d 8"):
            assert not lease.is_lost()  # it renewed a moment ago
            monkeypatch.setattr(lease, "_renewed", time.monotonic() - _lease.STALE_S)
            assert lease.is_lost()

    def test_a_rename_whose_answer_was_lost_counts(
        self, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A network disk repeats a request, and is told that the old name is gone."""
        rename = os.rename

        def twice(old: Path, new: Path) -> None:
            rename(old, new)
            rename(old, new)

        with taken(place) as lease:
            monkeypatch.setattr(os, "rename", twice)
            assert lease.holds()
            monkeypatch.undo()
