"""What a study is claimed for: once, by whichever first worker, and never twice."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import current_thread
from types import SimpleNamespace
from typing import Any

import optuna
import pytest

from optuna_demix.attributes import FINGERPRINT_ATTR, FINGERPRINT_CLAIM_PREFIX, OBJECTIVES_ATTR
from optuna_demix.errors import StudyError
from optuna_demix.storage.claim import Claim
from optuna_demix.study.fingerprint import (
    SCORING_VERSION,
    claim_study,
    code_versions,
    differences,
    digest_of,
    fingerprint_of,
)
from tests.storage.crew import said_at_once
from tests.storage.servers import PostgreSQL
from tests.study.claimants import claim_all
from tests.study.interleaving import Actor, interleave, schedules


class Died(BaseException):
    """A process ends here."""


def claim(study: optuna.Study, mark: str) -> None:
    claim_study(study, {"mark": mark}, metric_names=[f"score {mark}"], layout=[{mark: 1.0}])


def written_for(mark: str) -> dict[str, Any]:
    """What people see: of the fingerprint its digest alone."""
    return {FINGERPRINT_ATTR: digest_of({"mark": mark}), OBJECTIVES_ATTR: [{mark: 1.0}]}


def put(study: optuna.Study, fingerprint: dict[str, Any]) -> None:
    study._storage.set_study_system_attr(study._study_id, FINGERPRINT_ATTR, fingerprint)


def load(storage: Any) -> optuna.Study:
    return optuna.load_study(study_name="mix", storage=storage)


def claims(study: optuna.Study) -> list[Any]:
    attrs = study._storage.get_study_system_attrs(study._study_id)
    return [value for key, value in attrs.items() if key.startswith(FINGERPRINT_CLAIM_PREFIX)]


@pytest.fixture
def study() -> optuna.Study:
    return optuna.create_study(study_name="mix")


@pytest.fixture
def use_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets the clock of claims, and how they sleep."""

    def use(**clock: Callable[..., Any]) -> None:
        timed = partial(Claim, wall=lambda: 0.0, **clock)
        monkeypatch.setattr("optuna_demix.study.fingerprint.Claim", timed)

    return use


def test_a_first_worker_writes_everything_and_others_of_its_kind_go_on(
    study: optuna.Study,
) -> None:
    for _ in range(2):
        claim(study, "a")
        assert study.user_attrs == written_for("a") and fingerprint_of(study) == {"mark": "a"}
        assert study.metric_names == ["score a"]
        assert claims(study) == [None]  # released; the second worker had none to make
    with pytest.raises(StudyError, match=r"made for something else: mark \(study: 'a', here: 'b"):
        claim(study, "b")
    assert study.metric_names == ["score a"]


@pytest.mark.parametrize(
    ("marks", "least", "n_switches"),
    [
        ("ab", "a", 2),
        ("ab", "b", 2),
        ("aa", "a", 2),
        pytest.param("ab", "a", 3, marks=pytest.mark.slow),
        pytest.param("ab", "b", 3, marks=pytest.mark.slow),
        pytest.param("aa", "a", 3, marks=pytest.mark.slow),
    ],
)
def test_no_interleaving_lets_two_fingerprints_through(
    marks: str,
    least: str,
    n_switches: int,
    use_clock: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Write A, read A, write B, read B: each found its own mark, and both went on."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    actors: dict[str, Actor] = {}
    keys = {"first": int(least != marks[0]), "second": int(least == marks[0])}
    monkeypatch.setattr(
        "optuna_demix.storage.claim.uuid4",
        lambda: SimpleNamespace(hex=keys[current_thread().name]),
    )
    use_clock(
        monotonic=lambda: 0.0, sleep=lambda seconds: actors[current_thread().name].sleep(seconds)
    )
    longest, through = 0, set()
    for switches in schedules(n_calls=26, n_switches=n_switches):
        storage = optuna.storages.InMemoryStorage()
        optuna.create_study(storage=storage, study_name="mix")
        for name, mark in zip(keys, marks, strict=True):
            actors[name] = Actor(name, storage, lambda own, mark=mark: claim(load(own), mark))
        longest = max(longest, interleave(actors["first"], actors["second"], switches))
        results = {name: actor.result for name, actor in actors.items()}
        assert all(r is None or isinstance(r, StudyError) for r in results.values()), results
        winners = {marks[i] for i, result in enumerate(results.values()) if result is None}
        assert len(winners) == 1, (switches, results)
        mark = winners.pop()
        through.add(mark)
        written = load(storage)
        assert written.user_attrs == written_for(mark)
        assert fingerprint_of(written) == {"mark": mark}
        assert written.metric_names == [f"score {mark}"] and not any(claims(written))
        if marks == "aa":
            assert list(results.values()) == [None, None]
    assert through == set(marks) and longest > 20  # the schedules reach to the end


class Dying:
    """A storage whose process dies instead of its n-th call."""

    def __init__(self, storage: Any, n_calls: int) -> None:
        self._storage = storage
        self.n_calls = n_calls

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._storage, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.n_calls -= 1
            if self.n_calls < 0:
                raise Died
            return call(*args, **kwargs)

        return counted if callable(call) else call


def test_a_first_worker_that_dies_anywhere_blocks_nobody_for_ever(
    use_clock: Callable[..., None],
) -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    use_clock(monotonic=lambda: now[0], sleep=sleep)
    outcomes = []
    n_calls = 2  # those which load the study
    while True:
        storage = optuna.storages.InMemoryStorage()
        study = optuna.create_study(storage=storage, study_name="mix")
        try:
            claim(load(Dying(storage, n_calls)), "dead")
        except Died:
            pass
        else:
            break
        n_calls += 1
        held = any(value and value["held"] for value in claims(study))
        try:
            claim(study, "other")
            outcomes.append("other")
            assert not held
        except StudyError as error:
            assert held and "mark (study: 'dead', here: 'other')" in str(error)
            claim(study, "dead")  # the same worker, started again, finishes the mark
            outcomes.append("dead")
        mark = outcomes[-1]
        assert fingerprint_of(study) == {"mark": mark}
        assert study.user_attrs[OBJECTIVES_ATTR] == [{mark: 1.0}]
    assert set(outcomes) == {"other", "dead"} and sorted(outcomes, reverse=True) == outcomes
    assert now[0] < 60.0 * len(outcomes) + 1


def test_a_first_worker_that_was_suspended_for_long_finds_what_was_decided(
    use_clock: Callable[..., None],
) -> None:
    """It was passed over for dead; its next call must not undo what another one has written."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    use_clock(monotonic=lambda: now[0], sleep=sleep)
    refused = []
    n_calls = 0
    while True:
        storage = optuna.storages.InMemoryStorage()
        study = optuna.create_study(storage=storage, study_name="mix")
        suspended = Actor("suspended", storage, lambda own: claim(load(own), "a"))
        for _ in range(n_calls):
            suspended.step()
        if suspended.is_done:
            break
        n_calls += 1
        try:
            claim(study, "b")
            refused.append("a")
        except StudyError:
            refused.append("b")
        while not suspended.is_done:
            suspended.step()
        assert isinstance(suspended.result, StudyError) is (refused[-1] == "a")
        assert fingerprint_of(study) == {"mark": {"a": "b", "b": "a"}[refused[-1]]}
        assert not any(claims(study))
    assert set(refused) == {"a", "b"} and sorted(refused) == refused


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'mix.db'}"
    server: PostgreSQL = request.getfixturevalue("postgresql")
    return server.new_database()


@pytest.mark.xdist_group("storages")
def test_of_processes_that_come_first_one_kind_goes_on(url: str) -> None:
    names = [f"mix{i}" for i in range(12)]
    for name in names:
        optuna.create_study(study_name=name, storage=url)
    results = said_at_once(claim_all, [(url, mark, names) for mark in "abc"])
    for name in names:
        through = [mark for mark, passed in results if name in passed]
        assert len(through) == 1
        study = optuna.load_study(study_name=name, storage=url)
        assert fingerprint_of(study) == {"mark": through[0]}


def test_values_that_begin_alike_differ(study: optuna.Study) -> None:
    """Long values were compared by the 45 characters that a message shows of them."""
    prior = [0.1234567] * 9
    put(study, {"space": {"prior": prior}, "plan": "x" * 60})
    assert differences(study, {"space": {"prior": tuple(prior)}, "plan": "x" * 60}) == []
    other = {"space": {"prior": [*prior[:-1], 0.2]}, "plan": "x" * 59 + "y"}
    plan, last = differences(study, other)
    assert last == "space.prior.8 (study: 0.1234567, here: 0.2)"
    assert plan.startswith("plan (study: 'xxx") and len(plan) < 140


def test_a_digest_is_short_and_tells_fingerprints_apart() -> None:
    one, other = {"a": {"b": [1.0] * 99}, "c": 2}, {"a": {"b": [1.0] * 98}, "c": 2}
    assert digest_of(one) == digest_of(dict(reversed(one.items()))) != digest_of(other)
    assert len(digest_of(one)) == 16


def test_what_only_one_of_two_fingerprints_has_is_absent_in_the_other(
    study: optuna.Study,
) -> None:
    assert differences(study, {"a": 1}) == []  # not claimed yet
    put(study, {"a": {"b": 1}, "empty": {}})
    assert differences(study, {"a": {"c": None}}) == [
        "a.b (study: 1, here: absent)",
        "a.c (study: absent, here: None)",
        "empty (study: {}, here: absent)",
    ]


def test_code_is_part_of_a_fingerprint() -> None:
    versions = code_versions()
    assert versions == code_versions()
    assert versions["scoring"] == SCORING_VERSION
    assert not any("+" in str(version) for version in versions.values())
