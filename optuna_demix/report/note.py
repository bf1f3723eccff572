"""The note of a report: the recommendation and how far to trust it, as Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from optuna_demix._wording import counted

if TYPE_CHECKING:
    from optuna_demix.report.data import ReportData
    from optuna_demix.search import Mixture, PhaseWeights

# Link definitions that nothing refers to: Markdown does not show them.
BEGIN = "[optuna-demix]: # (begin: workers replace everything down to the end mark)"
END = "[optuna-demix]: # (end)"

_GAP = "\u2003"


def write_note(data: ReportData, *, at: datetime | None = None) -> str:
    """The note of a study.

    Args:
        data: The study.
        at: When it was read, with a time zone; default now.
    """
    when = (at or datetime.now(UTC)).astimezone(UTC)
    parts = [
        "## Recommended data mixture",
        f"From {counted(data.recommendation.n_trials, 'trial')}, {when:%Y-%m-%d %H:%M} UTC. "
        f"In the study: {_states(data)}.",
        _shares(data),
        "Train on the data shares: components hold data of other datasets as well."
        if not _is_plain(data)
        else "",
        _scores(data),
        _front(data),
        _outlook(data),
        "## How far to trust it",
        _accuracy(data),
        "Held-out: refitted without the trials it predicts. The best quarter tells whether good "
        "mixtures can still be ranked. Of the 90 % intervals, 90 % should hold the score.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def merge_note(existing: str, note: str) -> str:
    """Put a note into a text that people may have written to: only our own part is replaced.

    Args:
        existing: What is there.
        note: The new note.
    """
    ours = f"{BEGIN}\n\n{note.strip()}\n\n{END}"
    end = existing.find(END)
    start = existing.rfind(BEGIN, 0, max(end, 0))
    if start >= 0:
        return existing[:start] + ours + existing[end + len(END) :]
    return f"{existing.rstrip()}\n\n{ours}\n" if existing.strip() else f"{ours}\n"


def _shares(data: ReportData) -> str:
    """What the recommended mixture is, beside the prior; then the other parameters."""
    mixtures = data.recommendation.mixtures
    tables = []
    for mixture, recommended in mixtures["recommended"].weights.items():
        prior = mixtures["prior"].weights[mixture]
        rows = [
            [
                _cell(name),
                _percent(recommended.merge_weights.get(name)),
                _percent(prior.merge_weights.get(name)),
                _percent(recommended.data_shares.get(name)),
                _percent(prior.data_shares.get(name)),
            ]
            for name in dict.fromkeys([*recommended.merge_weights, *recommended.data_shares])
        ]
        header = [_cell(mixture), "merge weight", "(prior)", "**data share**", "(prior)"]
        tables.append(_markdown_table(header, rows))
        tables += [_phase(name, phase) for name, phase in recommended.phases.items()]
    params = data.recommendation.params
    if params:
        rows = [[_cell(name), _cell(_value(value))] for name, value in params.items()]
        tables.append(_markdown_table(["other parameter", "recommended"], rows))
    return "\n\n".join(tables)


def _phase(name: str, phase: PhaseWeights) -> str:
    """The recommended mixture of one phase of a run."""
    fixed = ", fixed" if phase.fixed else ""
    title = f"phase {_cell(name)}: {_percent(phase.share)} of the run{fixed}"
    weights, shares = phase.merge_weights, phase.data_shares
    rows = [
        [_cell(each), _percent(weights.get(each)), _percent(shares.get(each))]
        for each in dict.fromkeys([*weights, *shares])
    ]
    return _markdown_table([title, "merge weight", "**data share**"], rows)


def _scores(data: ReportData) -> str:
    """What mixtures score."""
    recommendation = data.recommendation
    rows = [
        _score_cells(
            data, f"best trial ({recommendation.best_trial})" if key == "best_trial" else key, one
        )
        for key, one in recommendation.mixtures.items()
    ]
    header = ["predicted", *(_cell(name) for name in data.objectives), "composite"]
    meaning = {
        "rank": "Composite: mean over the objectives of the share of random mixtures beaten."
    }.get(recommendation.composite, f"Composite: {recommendation.composite} of the objectives.")
    return f"{_markdown_table(header, rows)}\n\n{meaning}"


def _front(data: ReportData) -> str:
    """The predicted trade-offs, where the study looks for them."""
    front = data.recommendation.front
    if not front:
        return ""
    rows = [_score_cells(data, _cell(mixture.in_words()), mixture) for mixture in front]
    header = ["data shares", *(_cell(name) for name in data.objectives), "composite"]
    return (
        "Trade-offs: none of these is predicted to be better than another in every objective. "
        "The recommended mixture is the one with the best composite.\n\n"
        + _markdown_table(header, rows)
    )


def _score_cells(data: ReportData, name: str, mixture: Mixture) -> list[str]:
    scores = [
        f"{mixture.capabilities[o]:.4f}" + (f" ± {mixture.std[o]:.4f}" if mixture.std else "")
        for o in data.objectives
    ]
    return [name, *scores, f"{mixture.composite:.3f}"]


def _outlook(data: ReportData) -> str:
    state, _, reason = data.recommendation.outlook.partition(":")
    return f"**{state.capitalize()}**:{reason}."


def _accuracy(data: ReportData) -> str:
    """Held-out quality of the surrogate by benchmark."""
    validation = data.validation
    rows = [
        [
            _cell(name),
            _correlation(validation.spearman[j]),
            _correlation(validation.spearman_top_quarter[j]),
            _percent(validation.coverage[j], digits=0),
            str(int(validation.n[j])),
            _cell(validation.kinds[j]),
        ]
        for j, name in enumerate(data.effects.benchmarks)
    ]
    known = validation.spearman[np.isfinite(validation.spearman)]
    if len(rows) > 1 and len(known):
        rows.append(["**mean**", f"**{known.mean():.3f}**", "", "", "", ""])
    header = [
        "benchmark",
        "rank correlation, held-out",
        "in the best quarter",
        "90 % interval holds",
        "scores",
        "surrogate",
    ]
    return _markdown_table(header, rows)


def _states(data: ReportData) -> str:
    words = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running"}
    words["WAITING"] = "waiting"
    return ", ".join(
        f"{data.states[state]:,} {word}" for state, word in words.items() if data.states.get(state)
    )


def _is_plain(data: ReportData) -> bool:
    """Whether data shares are the merge weights."""
    return all(
        mixture.merge_weights.keys() == mixture.data_shares.keys()
        and all(
            abs(weight - mixture.data_shares[name]) < 1e-9
            for name, weight in mixture.merge_weights.items()
        )
        for mixture in data.recommendation.mixtures["recommended"].weights.values()
    )


def _markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    # The dashboard leaves no room between columns: each cell but the first brings its own.
    lines = [[line[0], *(_GAP + cell for cell in line[1:])] for line in [header, *rows]]
    lines.insert(1, ["---", *["---:"] * (len(header) - 1)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _percent(value: float | None, *, digits: int = 1) -> str:
    if value is None or not np.isfinite(value):
        return "–"
    return f"{100 * value:.{digits}f} %"


def _value(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _correlation(value: float) -> str:
    return f"{value:.3f}" if np.isfinite(value) else "–"


def _cell(name: str) -> str:
    """A name that stays one cell and is shown as it is."""
    return re.sub(r"([\\`*_\[\]<>|~])", r"\\\1", " ".join(name.split()))
