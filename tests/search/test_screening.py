"""Screening: who writes texts, what the others keep, and what is learned from both."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import optuna
import pytest

from optuna_demix import DemixSampler, MixtureObjective, MixtureSpace, recommend
from optuna_demix.attributes import CHEAP_PREFIX, FAILURE_ATTR, SAMPLING_SEED_ATTR, SCORE_PREFIX
from optuna_demix.errors import ConfigError
from optuna_demix.scoring import BlockScores, CheapScores
from optuna_demix.search.rows.history import has_failed
from optuna_demix.search.rows.screened import scores_of_cheap
from optuna_demix.search.screening import FIRST, WINDOW
from optuna_demix.storage.requeue import requeue

SPACE = MixtureSpace(["web", "code"])


class Writer:
    """A model that solves more the nearer its share of code is to 0.7, and tells so cheaply.

    Args:
        broken: What stands for the texts is NaN.
        misleading: It says nothing about the texts.
    """

    names = ("web", "code")

    def __init__(self, *, broken: bool = False, misleading: bool = False) -> None:
        self.broken, self.misleading, self.written = broken, misleading, 0

    def merge(self, w: np.ndarray) -> None:
        self.code = float(w[1])
        self.prose = -abs(self.code - 0.6)

    def score_cheaply(self, *, seed: int | None = None) -> CheapScores:
        cheap = -1.0 - (self.code - 0.7) ** 2
        if self.misleading:
            cheap = -1.0
        return CheapScores({"prose": self.prose}, {"gsm8k": math.nan if self.broken else cheap})

    def score_screened(self) -> dict[str, float]:
        self.written += 1
        noise = 0.002 * math.sin(900 * self.code)
        return {"prose": self.prose, "gsm8k": 0.5 - (self.code - 0.7) ** 2 + noise}

    def score(self) -> dict[str, float]:
        self.score_cheaply()
        return self.score_screened()


class Sampling(Writer):
    """The same with texts that are sampled; it keeps their seeds."""

    def __init__(self) -> None:
        super().__init__()
        self.seeds: list[int | None] = []

    def seed_of(self, number: int) -> int | None:
        return 100 + number

    def score_cheaply(self, *, seed: int | None = None) -> CheapScores:
        self.seeds.append(seed)
        return super().score_cheaply()

    def score(self, *, seed: int | None = None) -> dict[str, float]:
        self.score_cheaply(seed=seed)
        return self.score_screened()

    def race(self, *, seed: int | None = None) -> Iterator[BlockScores]:
        raise NotImplementedError


def run(
    codes: list[float], *, several: bool = False, keep: float = 0.25, **options: bool
) -> tuple[optuna.Study, Writer]:
    writer = Writer(**options)
    objective = MixtureObjective(
        SPACE,
        writer,
        writer,
        {"math": ["gsm8k"], "text": ["prose"]},
        weights=None if several else {"math": 1.0, "text": 0.0},
        keep=keep,
    )
    study = optuna.create_study(directions=["maximize"] * (2 if several else 1))
    for code in codes:
        study.enqueue_trial({"web": 1 - code, "code": code})
    study.optimize(objective, n_trials=len(codes))
    return study, writer


START = [i / 10 for i in range(FIRST)]


@pytest.mark.parametrize("several", [False, True])
def test_the_first_and_the_promising_write_and_the_others_are_pruned(several: bool) -> None:
    study, writer = run([*START, 0.69, 0.05], several=several)
    states = [trial.state.name for trial in study.trials]
    assert states[:FIRST] == ["COMPLETE"] * FIRST
    assert states[FIRST:] == ["COMPLETE", "PRUNED"]
    loser = study.trials[-1]
    assert writer.written == states.count("COMPLETE")
    assert loser.values is None
    assert loser.user_attrs[SCORE_PREFIX + "prose"] == pytest.approx(-0.55)
    assert SCORE_PREFIX + "gsm8k" not in loser.user_attrs
    assert loser.user_attrs[CHEAP_PREFIX + "gsm8k"] == pytest.approx(-1 - 0.65**2)
    assert not has_failed(loser)


def test_no_larger_share_writes_than_asked_for() -> None:
    _, writer = run([*START, *[0.05] * 8], misleading=True)  # each as good as the others
    assert writer.written == FIRST + 2
    _, writer = run([*START, 0.05, 0.3], keep=1.0)
    assert writer.written == FIRST + 2


def test_only_earlier_trials_count_also_those_that_still_run() -> None:
    study, _ = run(START)
    running = study.ask({name: d for name, d in SPACE.distributions().items()})
    for prefix, name, value in ((SCORE_PREFIX, "prose", 0.0), (CHEAP_PREFIX, "gsm8k", -1.0)):
        running.set_user_attr(prefix + name, value)  # as cheaply good as can be
    writer = Writer()
    objective = MixtureObjective(
        SPACE,
        writer,
        writer,
        {"math": ["gsm8k"], "text": ["prose"]},
        weights={"math": 1.0, "text": 0.0},
        keep=0.15,
    )
    study.enqueue_trial({"web": 0.31, "code": 0.69})
    study.optimize(objective, n_trials=1)
    assert study.trials[-1].state.name == "PRUNED"  # the running one is better
    study.tell(running, state=optuna.trial.TrialState.FAIL)
    study.enqueue_trial({"web": 0.31, "code": 0.691})
    study.optimize(objective, n_trials=1)
    assert study.trials[-1].state.name == "COMPLETE"


def test_a_trial_has_to_keep_up_with_the_last_ones_alone() -> None:
    good = [0.7 - 0.001 * i for i in range(WINDOW)]  # each a little worse than the last
    study, _ = run([*good, *[0.4] * WINDOW, 0.5, 0.3])
    states = [trial.state.name for trial in study.trials]
    assert states[FIRST:WINDOW] == ["PRUNED"] * (WINDOW - FIRST)
    assert states[-2:] == ["COMPLETE", "PRUNED"]  # better than the last, not than the first


def test_what_is_not_finite_fails_before_texts_are_written() -> None:
    study, writer = run([0.5], broken=True)
    (trial,) = study.trials
    assert trial.state.name == "FAIL"
    assert trial.user_attrs[FAILURE_ATTR] == "no finite score for gsm8k"
    assert writer.written == 0
    assert not any(name.startswith(CHEAP_PREFIX) for name in trial.user_attrs)


def test_texts_that_are_written_later_have_the_seed_of_the_trial() -> None:
    writer = Sampling()
    objective = MixtureObjective(SPACE, writer, writer, {"math": ["gsm8k"]}, keep=0.25)
    study = optuna.create_study(direction="maximize")
    study.enqueue_trial({"web": 0.5, "code": 0.5})
    study.enqueue_trial({"web": 0.4, "code": 0.6}, user_attrs={SAMPLING_SEED_ATTR: 7})
    study.optimize(objective, n_trials=2)
    assert writer.seeds == [100, 7] and writer.written == 2
    assert [trial.user_attrs[SAMPLING_SEED_ATTR] for trial in study.trials] == [100, 7]


def test_every_benchmark_may_be_screened() -> None:
    writer = Writer()
    objective = MixtureObjective(SPACE, writer, writer, {"math": ["gsm8k"]}, keep=0.25)
    writer.score_cheaply = lambda seed: CheapScores({}, {"gsm8k": -abs(writer.code - 0.7)})
    writer.score_screened = lambda: {"gsm8k": -abs(writer.code - 0.7)}
    study = optuna.create_study(direction="maximize")
    for code in (*START, *[0.1] * 12, 0.2, 0.05):
        study.enqueue_trial({"web": 1 - code, "code": code})
    study.optimize(objective, n_trials=FIRST + 14)
    states = [trial.state.name for trial in study.trials]
    assert states[FIRST] == "PRUNED"
    assert states[-2:] == ["COMPLETE", "PRUNED"]  # those that were pruned are rivals too


@pytest.mark.parametrize("keep", [0.0, 1.5, math.nan])
def test_a_share_that_cannot_be(keep: float) -> None:
    with pytest.raises(ConfigError, match="keep must be a share above 0 and up to 1"):
        MixtureObjective(SPACE, Writer(), Writer(), {"math": ["gsm8k"]}, keep=keep)
    with pytest.raises(ConfigError, match="raced or screened, not both"):
        MixtureObjective(SPACE, Writer(), Writer(), {"math": ["gsm8k"]}, keep=0.5, racing="block")


def test_scores_are_estimated_along_a_line() -> None:
    cheap = np.array([1.0, 2.0, 3.0, 4.0, 2.5, np.nan])
    known = np.array([0.1, 0.2, 0.3, 0.4, np.nan, np.nan])
    scores, errors = scores_of_cheap(cheap, known)
    assert scores[4] == pytest.approx(0.25)
    assert 0.0 <= errors[4] < 1e-6
    assert scores[:4].tolist() == known[:4].tolist()
    assert np.isnan(scores[5])
    _, noisy = scores_of_cheap(cheap, np.array([0.1, 0.3, 0.2, 0.4, np.nan, np.nan]))
    assert noisy[4] > 0.05
    falling, _ = scores_of_cheap(cheap, np.array([0.4, 0.3, 0.2, 0.1, np.nan, np.nan]))
    assert falling[4] == pytest.approx(0.25)  # a line that falls says nothing


@pytest.mark.parametrize("several", [False, True])
def test_the_search_learns_from_both_and_says_what_is_estimated(several: bool) -> None:
    writer = Writer()
    weights = None if several else {"math": 1.0, "text": 0.0}
    capabilities = {"math": ["gsm8k"], "text": ["prose"]}
    objective = MixtureObjective(SPACE, writer, writer, capabilities, weights=weights, keep=0.25)
    sampler = DemixSampler(SPACE, seed=0)
    study = optuna.create_study(directions=["maximize"] * (2 if several else 1), sampler=sampler)
    study.optimize(objective, n_trials=14)
    complete = [trial.number for trial in study.trials if trial.state.name == "COMPLETE"]
    assert writer.written == len(complete) < 14
    found = recommend(study)
    assert found.n_trials == 14
    assert found.best_trial in complete
    assert found.estimated == {"gsm8k": 14 - len(complete)}
    assert f"gsm8k: scored in {len(complete)} of 14 trials, estimated in the others" in str(found)
    if not several:
        assert found.merge_weights["code"] == pytest.approx(0.7, abs=0.05)


def test_a_repeated_trial_leaves_cheap_scores_behind() -> None:
    study, _ = run(START)
    requeue(study, study.trials[0])
    assert not any(name.startswith(CHEAP_PREFIX) for name in study.trials[-1].user_attrs)
