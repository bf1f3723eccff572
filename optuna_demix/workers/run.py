"""One worker: attach to the study, build the objective, work."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from optuna_demix._progress import Report, Step
from optuna_demix._stop import StopRequest
from optuna_demix.config.space import space_of
from optuna_demix.config.study import objective_names
from optuna_demix.report.write import reporter_of
from optuna_demix.storage.connection import connect
from optuna_demix.study.attach import check_directions, load_study
from optuna_demix.study.evaluation import build_objective
from optuna_demix.study.fingerprint import claim_study
from optuna_demix.study.proxies import prior_mean_of
from optuna_demix.study.search import options_from, pruner_of, sampler_of
from optuna_demix.workers.heartbeat import records_heartbeats
from optuna_demix.workers.loop import WorkerReport, work
from optuna_demix.workers.progress import study_progress

if TYPE_CHECKING:
    from optuna.study import Study

    from optuna_demix.config import StudyConfig
    from optuna_demix.scoring import HarnessScorer
    from optuna_demix.storage.timing import Timing

STOP_GRACE_S = 20.0
"""Seconds that a trial has after SIGTERM; schedulers kill 30 s after it, as a rule."""


def run_worker(
    config: StudyConfig,
    *,
    storage: str,
    study_name: str,
    n_trials: int | None = None,
    timeout: float | None = None,
    until_converged: bool = False,
    device: str = "auto",
    seed: int | None = None,
    stop_grace: float | None = STOP_GRACE_S,
    timing: Timing | None = None,
    dashboard: bool = True,
    progress: bool = True,
    report: Callable[[str], None] | None = None,
) -> WorkerReport:
    """Work on a study until it has its trials, the time is over, or a signal comes.

    Args:
        config: The study's file.
        storage: Storage URL, see :func:`~optuna_demix.storage.connection.connect`.
        study_name: Name of the study, made with ``optuna create-study``.
        n_trials: Trials the *study* is to have, those of other workers included; ``None`` for no
            end.
        timeout: Seconds after which no trial is started.
        until_converged: Stop when further trials are expected to gain less than their noise.
        device: Where the model lives.
        seed: Instead of the study's own seed; workers may share it.
        stop_grace: Seconds that a trial has after SIGTERM before it is released; ``None`` for
            as long as it takes.
        timing: Of heartbeats, and of patience with the storage.
        dashboard: Show plots and a note in ``optuna-dashboard``, where that is installed and
            the study's file does not say otherwise.
        progress: Show finished trials, in a bar where stderr is a terminal.
        report: Called with each line for the user, also those of a progress without a bar.

    Raises:
        DemixError: If study, components and tasks do not fit; nothing was written then.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    say = Report(report, bars=progress)
    with StopRequest(grace_s=stop_grace).installed() as stop:
        space = space_of(config)
        database = connect(storage, timing=timing, give_up=stop.urgent)
        study = load_study(database, study_name=study_name, sampler=None, pruner=pruner_of(config))
        check_directions(study, config)
        if not records_heartbeats(study):
            say(
                "Optuna records no heartbeats in this storage: each worker keeps a lease on its "
                f"trial, renewed every {database.timing.heartbeat_s} s, lost after "
                f"{database.timing.grace_s} s"
            )
        options = options_from(config, database)
        objective, fingerprint = build_objective(config, space, device=device, report=say)
        options = replace(options, prior_mean=prior_mean_of(objective.probabilities))
        study.sampler = sampler_of(config, space, options, seed=seed)
        claim_study(
            study,
            fingerprint,
            metric_names=objective_names(config),
            layout=objective.layout(),
        )
        reporter = reporter_of(study, config, space, options, to_dashboard=dashboard, say=report)
        terminator = None
        if until_converged:
            from optuna_demix.search.terminator import DemixTerminator

            terminator = DemixTerminator(space, options=options)

        def is_over(study: Study) -> str | None:
            if terminator is not None and terminator.should_terminate(study):
                return "further trials are expected to gain less than their noise"
            return None

        with study_progress(study, n_trials, say if progress else Report()) as shown:
            if shown is not None and objective.scorer is not None:
                watch_texts(cast("HarnessScorer", objective.scorer), shown.step)
            done = work(
                study,
                reporter.watching(objective),
                n_trials=n_trials,
                deadline=deadline,
                is_over=is_over,
                stop=stop,
                refresh=reporter.then(shown.refresh) if shown else reporter.told,
            )
        if done.healthy and not stop.event.is_set():
            reporter.finish()
        return done


def watch_texts(scorer: HarnessScorer, step: Step) -> None:
    """Note how many tokens of the running trial's texts are written."""

    def note(written: int, expected: int) -> None:
        text = f"{written:,} of {expected:,} tokens" if written else ""
        step.note(text, about="tokens")

    scorer.watch(note)
