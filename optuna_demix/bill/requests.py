"""Counts what a trial asks of its model, from data that lie on this host."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optuna_demix._progress import Report
from optuna_demix._wording import one_line
from optuna_demix.errors import DemixError, NeedsModelError

if TYPE_CHECKING:
    from optuna_demix.bill.reading import Model
    from optuna_demix.config import StudyConfig
    from optuna_demix.scoring import HarnessScorer
    from optuna_demix.scoring.workload import Workload


@dataclass(frozen=True)
class Counted:
    """What was counted.

    Attributes:
        work: What a merged model is given; ``None`` if nothing could be counted.
        smooth: Whether token probabilities alone give all scores.
        missing: Why a benchmark could not be counted, by its name.
    """

    work: Workload | None
    smooth: bool
    missing: Mapping[str, str]


def count_requests(config: StudyConfig, model: Model, report: Report) -> Counted:
    """Build the requests of a study's benchmarks and count them; nothing is downloaded.

    Args:
        config: The study.
        model: Its model, valueless.
        report: Where progress is shown.

    Raises:
        DemixError: If there is no tokenizer.
    """
    from optuna_demix.study.evaluation import plan_scorer

    tokenizer = model.load_tokenizer(trust_remote_code=config.scoring.trust_remote_code)
    valueless = model.skeleton.model

    def scorer(only: list[str] | None) -> HarnessScorer:
        return plan_scorer(config, valueless, tokenizer, only=only, report=report)

    with _offline():
        try:
            found = scorer(None)
            missing = {}
        except DemixError:  # of which benchmark?
            missing = _missing(config, scorer)
            known = [label for label in _labels(config) if label not in missing]
            if not known:
                return Counted(None, False, missing)
            found = scorer(known)
        return Counted(found.workload(), _is_smooth(config, found), missing)


def _missing(config: StudyConfig, scorer: Callable[[list[str]], HarnessScorer]) -> dict[str, str]:
    """Why some benchmarks cannot be counted."""
    reasons = {}
    for label in _labels(config):
        try:
            scorer([label])
        except DemixError as error:
            offline = "OfflineModeIsEnabled" in str(error)
            reasons[label] = "no data on this host" if offline else one_line(error)
    return reasons


def _labels(config: StudyConfig) -> list[str]:
    return [b.label for benchmarks in config.capabilities.values() for b in benchmarks]


def _is_smooth(config: StudyConfig, scorer: HarnessScorer) -> bool:
    """Whether no benchmark needs a merge, as a worker would find out."""
    import numpy as np

    if config.resolved_proxy != "auto":
        return config.resolved_proxy == "probabilities"
    try:
        replay = scorer.replay()
    except NeedsModelError:
        return False
    known = replay.functions(np.empty((0, len(replay.token_counts()))))
    return all(name in known and known[name].smooth for name in replay.benchmarks)


@contextmanager
def _offline() -> Iterator[None]:
    """Let ``datasets`` and the hub's client read what lies on this host, and nothing else."""
    import datasets
    from huggingface_hub import constants

    before = datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before
