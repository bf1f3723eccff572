"""The first part of the page: the recommended mixture, what it scores, how far to trust it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from optuna_demix.report.page import _words as words
from optuna_demix.report.page._what_if import is_plain
from optuna_demix.report.page._words import Z90, escaped, percent
from optuna_demix.report.page.trust import Finding, Level, agreements, difference, findings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from optuna_demix.report.data import ReportData
    from optuna_demix.search import Mixture

_ALWAYS = 12  # components up to which all stand in the study's order
_SHOWN = 16  # of more, so many of the largest are seen at once
_COLUMNS = ("recommended", "prior", "uniform", "best_trial")
_VERDICTS = {
    Level.GOOD: ("good", "Can be trusted"),
    Level.CAREFUL: ("careful", "Use with care"),
    Level.POOR: ("poor", "Not reliable yet"),
}
_MARKS = {Level.GOOD: ("good", "✓"), Level.CAREFUL: ("careful", "!"), Level.POOR: ("poor", "✕")}
_MARK_WORDS = {Level.GOOD: "Good", Level.CAREFUL: "Careful", Level.POOR: "Poor"}


def answer(data: ReportData, colors: Mapping[str, int], *, scored_by: str = "") -> str:
    """HTML of the answer.

    Args:
        data: The study.
        colors: Number of the color of each component and dataset.
        scored_by: Which proxies scored the trials, in words; empty where that is not known.
    """
    found = findings(data)
    kind, verdict = _VERDICTS[found[0].level]
    left, right = _mixtures(data, colors) + _params(data), _scores(data)
    trust = _trust(data, found, scored_by)
    if len(data.space) <= _ALWAYS:  # both columns are about as long
        left += trust
    else:
        right += trust
    return (
        '<section id="answer" class="card wide" aria-labelledby="answer-title">'
        '<div class="verdict"><h2 id="answer-title">Recommended mixture</h2>'
        f'<span class="pill {kind}">{verdict}</span></div>'
        f'<p class="lead">{_lead(data)}</p>'
        f'<div class="columns"><div>{left}</div><div>{right}</div></div>'
        f"{_front(data)}</section>"
    )


def _lead(data: ReportData) -> str:
    mixtures = data.recommendation.mixtures
    composite = {key: words.merit(data, one.composite) for key, one in mixtures.items()}
    meaning = {
        "rank": "the share of random mixtures that it beats, in the mean of the objectives",
    }.get(data.recommendation.composite, f"{data.recommendation.composite} of the objectives")
    between = words.interval(data, mixtures["recommended"])
    return (
        f'Predicted composite <strong class="number">{composite["recommended"]}</strong> '
        f"(90&nbsp;% interval {between}), against {composite['prior']} of the prior and "
        f"{composite['uniform']} of the uniform mixture. "
        f'<span class="muted">Composite: {escaped(meaning)}.</span>'
    )


def _mixtures(data: ReportData, colors: Mapping[str, int]) -> str:
    """Merge weights and data shares beside the prior's; of several mixtures one table each."""
    mixtures = data.recommendation.mixtures
    tables = []
    for key, recommended in mixtures["recommended"].weights.items():
        prior = mixtures["prior"].weights[key]
        shown = key == (data.space.name or "")
        plain = shown and is_plain(data.space)
        epochs = _epochs(data, recommended.data_shares) if shown else {}
        names = list(dict.fromkeys([*recommended.merge_weights, *recommended.data_shares]))
        if len(names) > _ALWAYS:
            both = (recommended.data_shares, recommended.merge_weights)
            names.sort(key=lambda name: -max(part.get(name, 0.0) for part in both))
        columns = [recommended.data_shares, prior.data_shares]
        header = ["Data share", "Prior"]
        if not plain:
            columns = [recommended.merge_weights, prior.merge_weights, *columns]
            header = ["Merge weight", "Prior", *header]
        if epochs:
            header = [*header, "Epochs"]
        rows = []
        for name in names:
            cells = [_share(part.get(name), i % 2 == 1) for i, part in enumerate(columns)]
            if epochs:
                cells.append(f"<td>{epochs.get(name, '–')}</td>")
            rows.append(f'<tr><th scope="row">{swatch(name, colors)}</th>{"".join(cells)}</tr>')
        title = f"Mixture {escaped(key)}" if key else "Component"
        caption = "What to train on, in %" if plain else "What to merge and what to train on, in %"
        tables.append(_folded(title, header, rows, caption))
    remark = ""
    if not is_plain(data.space):
        remark = (
            '<p class="muted small">Train on the data shares: components hold data of other '
            "datasets as well.</p>"
        )
    return "".join(tables) + remark


def _folded(title: str, header: Sequence[str], rows: Sequence[str], caption: str) -> str:
    """A table of which only the first rows are seen at once, if there are many."""
    first = table([title, *header], rows[:_SHOWN], caption, kind="shares")
    rest = rows[_SHOWN:]
    if not rest:
        return first
    more = table([title, *header], rest, f"{caption}: the smaller ones", kind="shares")
    return f"{first}<details><summary>{len(rest)} smaller ones</summary>{more}</details>"


def _epochs(data: ReportData, shares: Mapping[str, float]) -> dict[str, str]:
    """Epochs of the planned run over each dataset, where sizes and budget are known."""
    space = data.space
    if space.budget is None or space.tokens is None:
        return {}
    sizes = zip(space.datasets, space.tokens.tolist(), strict=True)
    return {
        name: f"{shares[name] * space.budget / tokens:.2f}"
        for name, tokens in sizes
        if tokens > 0 and name in shares
    }


def _share(value: float | None, is_prior: bool) -> str:
    kind = "muted" if is_prior else "main"
    return f'<td class="{kind}">{percent(value)}</td>'


def _params(data: ReportData) -> str:
    params = data.recommendation.params
    if not params:
        return ""
    rows = [
        f'<tr><th scope="row">{words.breakable(name)}</th>'
        f"<td>{escaped(words.value_words(value))}</td></tr>"
        for name, value in params.items()
    ]
    return table(["Other parameter", "Recommended"], rows, "Other parameters")


def _scores(data: ReportData) -> str:
    """What each mixture scores, one row for each objective."""
    mixtures = data.recommendation.mixtures
    keys = [key for key in _COLUMNS if key in mixtures]
    rows = []
    for j, name in enumerate(data.objectives):
        cells = [_score_cell(mixtures[key], name) for key in keys]
        gain, half = difference(data, j, "recommended", "prior")
        sure = " sure" if gain * data.signs[j] > half else ""
        text = f"{words.signed(gain)}<small>±{words.score(half)}</small>"
        cells.append(f'<td class="gain{sure}">{text}</td>')
        rows.append(f'<tr><th scope="row">{words.breakable(name)}</th>{"".join(cells)}</tr>')
    composites = [
        f"<td>{words.merit(data, mixtures[key].composite)}"
        f"<small>{words.interval(data, mixtures[key], to='–')}</small></td>"
        for key in keys
    ]
    gain = mixtures["recommended"].composite - mixtures["prior"].composite
    rows.append(
        f'<tr class="total"><th scope="row">Composite</th>{"".join(composites)}'
        f'<td class="gain">{f"{gain:+.3f}".replace("-", words.MINUS)}</td></tr>'
    )
    header = ["Predicted", *(words.label(data, key) for key in keys), "Gain over prior"]
    minimized = [n for n, s in zip(data.objectives, data.signs, strict=True) if s < 0]
    lower = f" Lower is better in {escaped(', '.join(minimized))}." if minimized else ""
    remark = (
        '<p class="muted small">± and the second line: 90 % intervals of what the surrogate '
        f"expects; a single trial scatters more.{lower} Bold gains are larger than their interval."
        "</p>"
    )
    return table(header, rows, "Predicted scores", kind="scores") + remark


def _score_cell(mixture: Mixture, name: str) -> str:
    std = mixture.std.get(name)
    half = "" if std is None else f"<small>±{words.score(Z90 * std)}</small>"
    return f"<td>{words.score(mixture.capabilities[name])}{half}</td>"


def _trust(data: ReportData, found: Sequence[Finding], scored_by: str) -> str:
    """Findings, which proxies scored, and where they disagree."""
    items = []
    for finding in found:
        kind, mark = _MARKS[finding.level]
        items.append(
            f'<li class="{kind}"><span class="mark" role="img" '
            f'aria-label="{_MARK_WORDS[finding.level]}">{mark}</span>'
            f"<div><strong>{escaped(finding.title)}.</strong> {escaped(finding.text)}</div></li>"
        )
    by = f'<p class="small">Proxies: {escaped(scored_by)}.</p>' if scored_by else ""
    return (
        '<h3>How far to trust it</h3><ul class="findings">'
        f"{''.join(items)}</ul>{by}{_proxies(data)}"
    )


def _proxies(data: ReportData) -> str:
    rows = [
        f'<tr><th scope="row">{words.breakable(one.objective)}</th>'
        f"<td>{words.correlation(one.all)}</td>"
        f"<td>{words.correlation(one.best)}</td><td>{one.n:,}</td></tr>"
        for one in agreements(data)
    ]
    if not rows:
        return ""
    header = ["Merged against probabilities", "Rank correlation", "In the best quarter", "Trials"]
    return table(header, rows, "How both proxies rank the trials")


def _front(data: ReportData) -> str:
    """The predicted trade-offs, where the study looks for them."""
    front = data.recommendation.front
    if not front:
        return ""
    rows = []
    for mixture in front:
        cells = [_score_cell(mixture, name) for name in data.objectives]
        composite = f"<td>{words.merit(data, mixture.composite)}</td>"
        name = escaped(mixture.in_words())
        rows.append(f'<tr><th scope="row">{name}</th>{"".join(cells)}{composite}</tr>')
    header = ["Largest data shares", *data.objectives, "Composite"]
    return (
        f"<details><summary>{len(front)} trade-offs: none is predicted to be better than another "
        f"in every objective</summary>{table(header, rows, 'Trade-offs')}</details>"
    )


def accuracy(data: ReportData) -> str:
    """HTML of the held-out quality of the surrogate, one row for each benchmark."""
    validation = data.validation
    rows = [
        f'<tr><th scope="row">{words.breakable(name)}</th>'
        f"<td>{words.correlation(validation.spearman[j])}</td>"
        f"<td>{words.correlation(validation.spearman_top_quarter[j])}</td>"
        f"<td>{percent(validation.coverage[j], 0)}</td><td>{int(validation.n[j]):,}</td>"
        f"<td>{escaped(validation.kinds[j])}</td></tr>"
        for j, name in enumerate(data.effects.benchmarks)
    ]
    header = ["Benchmark", "Rank correlation", "In the best quarter"]
    header += ["90 % interval holds, %", "Scores", "Surrogate"]
    return table(header, rows, "Held-out accuracy of the surrogate")


def swatch(name: str, colors: Mapping[str, int]) -> str:
    """A name behind a mark of its color."""
    return f'<span class="swatch c{colors.get(name, "x")}"></span>{words.breakable(name)}'


def table(header: Sequence[str], rows: Sequence[str], caption: str, *, kind: str = "") -> str:
    """A table in a frame that scrolls where it is too wide, its caption for screen readers."""
    heads = [words.breakable(name).replace("Recommended", "Recom&shy;mended") for name in header]
    cells = "".join(f'<th scope="col">{head}</th>' for head in heads)
    label = escaped(caption)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{label}">'
        f'<table class="{kind}"><caption class="hidden">{label}</caption>'
        f"<thead><tr>{cells}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )
