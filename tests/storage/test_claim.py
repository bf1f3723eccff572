"""Claims: one process holds one, also when others are killed, suspended or have wrong clocks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest

from optuna_demix.storage.claim import Claim
from tests.storage.claimants import PREFIX, hold, race
from tests.storage.crew import CONTEXT, said_at_once, start_process

PATIENCE_S = 900.0


class Clock:
    def __init__(self, at: float = 0.0) -> None:
        self.now = at

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def study() -> optuna.Study:
    return optuna.create_study(study_name="mix")


def claim_of(study: optuna.Study, clock: Clock, *, wall: Clock | None = None, **kw: Any) -> Claim:
    kw = {"sleep": lambda seconds: None, "patience_s": PATIENCE_S, **kw}
    return Claim(study, PREFIX, monotonic=clock, wall=wall or clock, **kw)


@pytest.mark.xdist_group("storages")
@pytest.mark.parametrize("new_url", ["sqlite", "postgresql"], indirect=True)
def test_processes_never_hold_a_claim_at_once(new_url: str, tmp_path: Path) -> None:
    held = said_at_once(race, [(new_url, str(tmp_path / "inside"), 12)] * 3)
    assert None not in held and sum(held) > 0
    attrs = optuna.load_study(study_name="mix", storage=new_url)._storage.get_study_system_attrs(1)
    claims = [value for key, value in attrs.items() if key.startswith(PREFIX)]
    assert 0 < len(claims) <= 3 and not any(claims)  # all released, a key for each process


@pytest.mark.parametrize("new_url", ["sqlite"], indirect=True)
def test_a_killed_holder_is_passed_over_after_a_while(new_url: str) -> None:
    here, there = CONTEXT.Pipe()
    holder = start_process(hold, new_url, there)
    assert here.recv() is True
    holder.kill()
    holder.join()
    clock = Clock()
    study = optuna.load_study(study_name="mix", storage=new_url)
    # The wall clock is the real one, so that the dead process' claim looks fresh.
    claim = Claim(study, PREFIX, patience_s=PATIENCE_S, monotonic=clock)
    for seconds, is_free in ((0, False), (PATIENCE_S - 1, False), (PATIENCE_S, True)):
        clock.now = seconds
        with claim.held() as is_held:
            assert is_held is is_free


def test_a_holder_that_lives_is_not_mistaken_for_dead(study: optuna.Study) -> None:
    clock = Clock()
    holder, other = claim_of(study, clock), claim_of(study, clock)
    for _ in range(5):  # a new claim each time: the old one's age does not count
        with holder.held() as is_held, other.held() as also:
            assert is_held and not also
        clock.now += PATIENCE_S - 1


def test_clocks_may_differ_by_much(study: optuna.Study) -> None:
    slow = claim_of(study, Clock(), wall=Clock(0.0))
    fast = claim_of(study, Clock(), wall=Clock(1800.0))
    for holder, other in ((slow, fast), (fast, slow)):
        with holder.held() as is_held, other.held() as also:
            assert is_held and not also


def test_a_claim_is_released_after_an_error(study: optuna.Study) -> None:
    with pytest.raises(RuntimeError), claim_of(study, Clock()).held():
        raise RuntimeError
    with claim_of(study, Clock()).held() as is_held:
        assert is_held


def test_the_least_key_outlasts_those_who_ask_with_it(study: optuna.Study) -> None:
    def write(key: str, value: Any) -> None:
        study._storage.set_study_system_attr(study._study_id, PREFIX + key, value)

    class Overlap(Claim):
        """Another one asks right after this one has found nobody."""

        rival, held_by_it = "9", False

        def _write(self, claim: Any) -> None:
            super()._write(claim)
            if claim is not None and not claim["held"]:
                write(self.rival, {"id": self.rival, "at": 0.0, "held": self.held_by_it})

    for rival, is_held_by_it, wins in (
        ("9", False, True),
        ("9", True, False),
        ("1", False, False),
    ):
        claim = Overlap(
            study, PREFIX, patience_s=PATIENCE_S, monotonic=Clock(), wall=Clock(),
            sleep=lambda seconds, rival=rival: write(rival, None),
        )  # fmt: skip
        claim._key, claim.rival, claim.held_by_it = f"{PREFIX}5", rival, is_held_by_it
        with claim.held() as is_held:
            assert is_held is wins
        write(rival, None)


def test_one_that_was_passed_over_does_not_hold_beside_another(study: optuna.Study) -> None:
    """It was suspended after it had found nobody, before it wrote that it holds the claim."""
    clock = Clock()
    late, other = claim_of(study, clock), claim_of(study, clock)
    write, block = late._write, other.held()
    entered = []

    def suspended(claim: Any) -> None:
        if claim is not None and claim["held"] and not entered:
            assert other._rivals()  # it sees the first one ask, and nothing more of it
            clock.now += PATIENCE_S
            entered.append(block.__enter__())
        write(claim)

    late._write = suspended  # type: ignore[method-assign]
    with late.held() as is_held:
        assert entered == [True] and not is_held
    block.__exit__(None, None, None)
    with late.held() as is_held:
        assert is_held


def test_those_of_one_purpose_hold_a_claim_together(study: optuna.Study) -> None:
    first, second, other = (
        claim_of(study, Clock(), purpose=[purpose]) for purpose in ("a", "a", "b")
    )
    with first.held() as one, second.held() as two:
        assert one and two
        with other.held(wait=True) as is_held:
            assert not is_held and other.decided == ["a"]
    with other.held() as is_held:
        assert is_held and other.decided is None


def test_who_waits_gets_what_another_one_asked_for_and_left(study: optuna.Study) -> None:
    clock = Clock()
    asked = {"id": 1, "at": 0.0, "held": False, "purpose": "a"}
    study._storage.set_study_system_attr(study._study_id, f"{PREFIX}0", asked)

    def sleep(seconds: float) -> None:
        clock.now += seconds

    with claim_of(study, clock, wall=Clock(), purpose="b", sleep=sleep).held() as is_held:
        assert not is_held
    with claim_of(study, clock, wall=Clock(), purpose="b", sleep=sleep).held(wait=True) as is_held:
        assert is_held
    assert PATIENCE_S <= clock.now < PATIENCE_S + 1


@pytest.mark.parametrize("after_s", [0.0, 10 * PATIENCE_S])
def test_what_was_decided_stands_whatever_became_of_its_process(
    study: optuna.Study, after_s: float
) -> None:
    held = {"id": 1, "at": 0.0, "held": True, "purpose": "a"}
    study._storage.set_study_system_attr(study._study_id, f"{PREFIX}9", held)
    clock = Clock()
    for purpose, may in (("b", False), ("a", True)):
        claim = claim_of(study, clock, purpose=purpose)
        claim._rivals()
        clock.now += after_s
        with claim.held(wait=True) as is_held:
            assert is_held is may
        assert claim.decided == (None if may else "a")
