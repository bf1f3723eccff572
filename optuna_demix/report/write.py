"""Reports of a study that a ``study.yaml`` describes: for the command line and for workers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from optuna_demix.errors import StudyError
from optuna_demix.report import dashboard
from optuna_demix.report._schedule import ReportSchedule
from optuna_demix.report.data import gather
from optuna_demix.report.note import write_note
from optuna_demix.report.plots._figures import figures
from optuna_demix.report.reporter import Reporter
from optuna_demix.study.search import options_of

if TYPE_CHECKING:
    from optuna.study import Study

    from optuna_demix.config import StudyConfig
    from optuna_demix.mixture import MixtureSpace
    from optuna_demix.search.options import SearchOptions

_SCORED_BY = {
    "merged": "merged models",
    "probabilities": "mixtures of the components' token probabilities",
    "auto": "mixtures of the components' token probabilities, and for accuracies the mean of "
    "these and merged models",
}


def write_report(
    study: Study,
    config: StudyConfig,
    space: MixtureSpace,
    *,
    folder: Path | None = None,
    to_dashboard: bool = False,
) -> None:
    """Write the report of a study to files, to the dashboard, or to both.

    Args:
        study: The study.
        config: Its file.
        space: Its mixture.
        folder: Where to write files; ``None`` for none.
        to_dashboard: Whether to show it in the dashboard.

    Raises:
        DemixError: If the dashboard or plotly is to be shown in and missing, or the folder cannot
            be written to.
        StudyError: If the study has fewer than two finished trials, or a worker is just writing
            its report.
    """
    from optuna_demix.report.files import write_files
    from optuna_demix.report.page import build_page

    if to_dashboard:
        dashboard.require_available()
    # Claimed before the fit: who is refused need not wait for it.
    with ReportSchedule(study).claimed() if to_dashboard else nullcontext(True) as is_ours:
        if not is_ours:
            raise StudyError(
                f"study {study.study_name!r}: a worker is just writing its report; "
                "try again in a minute"
            )
        data = gather(study, space, options=options_of(config, space, study))
        note = write_note(data)
        if folder is not None:
            by = _SCORED_BY[config.resolved_proxy]
            write_files(folder, build_page(data, title=study.study_name, scored_by=by), note)
        if to_dashboard:
            dashboard.push(study, figures(data), note)


def reporter_of(
    study: Study,
    config: StudyConfig,
    space: MixtureSpace,
    options: SearchOptions,
    *,
    to_dashboard: bool = True,
    say: Callable[[str], None] | None = None,
) -> Reporter:
    """What a worker reports with.

    Args:
        study: The study, with its sampler.
        config: Its file.
        space: Its mixture.
        options: How to read the study, as in ``recommend``.
        to_dashboard: Whether to show reports, if the file allows it and the dashboard is
            installed; without it trials alone are annotated.
        say: Called with a line for the user.
    """
    wanted = config.dashboard

    def write() -> None:
        data = gather(study, space, options=options)
        dashboard.push(study, figures(data), write_note(data))

    return Reporter(
        study,
        space,
        write if to_dashboard and wanted.push and dashboard.is_available() else None,
        schedule=ReportSchedule(study, interval_s=wanted.interval, growth=wanted.growth),
        say=say,
    )
