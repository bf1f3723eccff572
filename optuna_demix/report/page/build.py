"""The page as a whole."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from optuna_demix.report.page._answer import accuracy, answer
from optuna_demix.report.page._bars import bars
from optuna_demix.report.page._charts import charts
from optuna_demix.report.page._colors import OTHERS, PALETTE, color_numbers, text_color
from optuna_demix.report.page._encoding import to_json
from optuna_demix.report.page._heat_map import heat_map
from optuna_demix.report.page._what_if import what_if_of
from optuna_demix.report.page._words import Z90, escaped, label, value_words

if TYPE_CHECKING:
    from optuna_demix.report.data import ReportData

_STYLES = ("page.css", "answer.css", "charts.css", "what_if.css")
_SCRIPTS = ("surrogate.js", "charts.js", "what_if.js", "start.js")
# The page asks nothing of any network, and the browser holds it to that.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def build_page(
    data: ReportData, *, title: str, scored_by: str = "", at: datetime | None = None
) -> str:
    """The page of a study.

    Args:
        data: The study.
        title: Its name.
        scored_by: Which proxies scored the trials, in words; empty where that is not known.
        at: When the study was read, with a time zone; default now.
    """
    colors = color_numbers(data)
    drawn = charts(data, colors)
    content: dict[str, Any] = {
        "title": title,
        "z90": Z90,
        "share": data.recommendation.composite == "rank",
        "labels": {key: label(data, key) for key in data.recommendation.mixtures},
        "colors": colors,
        "params": {
            key: ", ".join(f"{name} {value_words(value)}" for name, value in one.params.items())
            for key, one in data.recommendation.mixtures.items()
        },
        "charts": drawn,
        "whatIf": what_if_of(data),
    }
    when = (at or datetime.now(UTC)).astimezone(UTC)
    # No card stands alone in a row, and many panels need all of it.
    stands_alone = "proxies" not in drawn or len(drawn["predictions"]["panels"]) > 2
    kinds = dict.fromkeys(("predictions", "proxies"), "wide" if stands_alone else "")
    sections = [
        answer(data, colors, scored_by=scored_by),
        _what_if(),
        _section("mixtures", "What they are made of", bars(data, colors), kind="wide"),
        *(_figure(name, chart, kinds.get(name, "")) for name, chart in drawn.items()),
        _section(
            "effects",
            "Which component moves which benchmark",
            heat_map(data, colors),
            remark="predicted change, in standard deviations, for 10 points more of a component "
            "and less of all others",
            kind="wide",
        ),
        _section(
            "accuracy",
            "How well held-out scores are predicted",
            accuracy(data),
            remark="refitted without the trials it predicts; the best quarter tells whether good "
            "mixtures can still be ranked",
            kind="wide",
        ),
    ]
    heading = escaped(title)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{heading}: recommended data mixture</title>\n"
        f"<style>\n{_style()}</style>\n</head>\n<body>\n"
        '<a class="skip" href="#what-if">Skip to the what-if panel</a>\n'
        f'<header><h1>{heading}</h1><p class="muted">{_states(data)} · {when:%Y-%m-%d %H:%M} UTC'
        "</p></header>\n"
        f"<main>\n{chr(10).join(sections)}\n</main>\n"
        f'<script type="application/json" id="content">{to_json(content)}</script>\n'
        f"<script>\n{_script()}</script>\n</body>\n</html>\n"
    )


def _section(name: str, title: str, content: str, *, remark: str = "", kind: str = "") -> str:
    under = f'<p class="muted small">{escaped(remark)}</p>' if remark else ""
    return (
        f'<section id="{name}" class="card {kind}" aria-labelledby="{name}-title">'
        f'<h2 id="{name}-title">{escaped(title)}</h2>{under}{content}</section>'
    )


def _figure(name: str, chart: dict[str, Any], kind: str = "") -> str:
    """A plot that is drawn once its card has a width."""
    alt = escaped(chart["alt"])
    figure = f'<figure class="chart" data-chart="{name}" role="img" aria-label="{alt}"></figure>'
    return _section(name, chart["title"], figure, remark=chart["remark"], kind=kind)


def _what_if() -> str:
    return _section("what-if", "What if?", _asset("what_if.html"), kind="wide")


def _states(data: ReportData) -> str:
    words = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running"}
    words["WAITING"] = "waiting"
    return "Trials: " + ", ".join(
        f"{data.states[state]:,} {word}" for state, word in words.items() if data.states.get(state)
    )


@lru_cache(maxsize=1)
def _style() -> str:
    rules = [f".c{i}{{--own:{c};--on:{text_color(c)}}}" for i, c in enumerate(PALETTE)]
    rules.append(f".cx{{--own:{OTHERS};--on:{text_color(OTHERS)}}}")
    return "".join(_asset(name) for name in _STYLES) + "\n".join(rules) + "\n"


@lru_cache(maxsize=1)
def _script() -> str:
    """All scripts, in a scope of their own."""
    parts = "".join(_asset(name) for name in _SCRIPTS)
    return f'(() => {{\n"use strict";\n{parts}}})();\n'


def _asset(name: str) -> str:
    return (files("optuna_demix.report.page") / "assets" / name).read_text(encoding="utf-8")
