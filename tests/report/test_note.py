from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from optuna_demix.report import ReportData, write_note
from optuna_demix.report.note import BEGIN, END, merge_note
from optuna_demix.report.page import build_page

pytestmark = pytest.mark.xdist_group("report")
AT = datetime(2026, 5, 4, 3, 2, tzinfo=UTC)


def table(note: str, header: str) -> dict[str, list[str]]:
    """Rows of the table that follows a header cell, by their first cell."""
    lines = note.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|") and header in line)
    rows = {}
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        rows[cells[0].replace("\\", "")] = cells[1:]
    return rows


def test_it_holds_the_recommendation(data: ReportData) -> None:
    note = write_note(data, at=AT)
    shares = table(note, "merge weight")
    recommendation = data.recommendation
    for name, weight in recommendation.merge_weights.items():
        assert shares[name][0] == f"{100 * weight:.1f} %"
        assert shares[name][2] == f"{100 * recommendation.data_shares[name]:.1f} %"
    scores = table(note, "composite")
    assert list(scores) == [
        "prior", "uniform", f"best trial ({recommendation.best_trial})", "recommended",
    ]  # fmt: skip
    best = recommendation.mixtures["recommended"]
    assert scores["recommended"][-1] == f"{best.composite:.3f}"
    assert scores["recommended"][0].startswith(f"{best.capabilities['general']:.4f} ±")
    assert "2026-05-04 03:02 UTC" in note
    assert "From 60 trials" in note and "60 complete, 3 failed" in note


def test_it_opens_with_the_answer(data: ReportData) -> None:
    mixtures = data.recommendation.mixtures
    opening = write_note(data, at=AT).split("\n\n")[:4]
    assert opening[0] == "## Recommended data mixture"
    shares = mixtures["recommended"].data_shares
    largest = max(shares, key=lambda name: shares[name]).replace("_", "\\_")
    assert opening[1].startswith(f"Train on {largest} **{100 * max(shares.values()):.1f} %**")
    assert f"(prior {mixtures['prior'].capabilities['code']:.4f})" in opening[2]
    assert opening[3].startswith("From 60 trials")
    trials = table(write_note(data, at=AT), "measured")
    assert list(trials) == [f"trial {n}" for n in data.numbers[data.best_first()[:10]]]


def test_what_speaks_against_it_comes_first(data: ReportData) -> None:
    blind = replace(data.recommendation, accuracy={"piqa/acc": 0.02})
    doubted = replace(data, recommendation=blind)
    assert blind.warnings and not data.recommendation.warnings
    first = write_note(doubted, at=AT).split("\n\n")[1]
    assert first.startswith("**Warning:** predictions hardly rank mixtures")
    page = build_page(doubted, title="t", at=AT)
    assert page.index("Warning:</strong> predictions hardly") < page.index("Predicted composite")
    assert "Warning" not in build_page(data, title="t", at=AT)


def test_a_uniform_prior_is_one_row(data: ReportData) -> None:
    mixtures = dict(data.recommendation.mixtures)
    mixtures["uniform"] = mixtures["prior"]
    even = replace(data, recommendation=replace(data.recommendation, mixtures=mixtures))
    rows = list(table(write_note(even, at=AT), "predicted"))
    assert rows[0] == "prior = uniform" and len(rows) == 3


def test_it_tells_how_far_to_trust_it(data: ReportData) -> None:
    rows = table(write_note(data, at=AT), "held-out")
    for j, name in enumerate(data.effects.benchmarks):
        assert rows[name][0] == f"{data.validation.spearman[j]:.3f}"
        assert rows[name][1] == f"{data.validation.spearman_top_quarter[j]:.3f}"
        assert rows[name][3] == "60"
    assert rows["**mean**"][0] == f"**{np.mean(data.validation.spearman):.3f}**"


def test_unknown_accuracy_is_a_dash(data: ReportData) -> None:
    blind = replace(data.validation, spearman=np.full(6, np.nan), coverage=np.full(6, np.nan))
    rows = table(write_note(replace(data, validation=blind)), "held-out")
    assert all(row[0] == "–" and row[2] == "–" for row in rows.values())
    assert "nan" not in write_note(replace(data, validation=blind))


def test_names_stay_in_their_cell(data: ReportData) -> None:
    effects = replace(data.effects, benchmarks=("a|b", "c_d", "e\nf", "g", "h", "i"))
    note = write_note(replace(data, effects=effects))
    assert r"| a\|b |" in note and r"| c\_d |" in note and "| e f |" in note


def test_the_readers_own_words_are_kept() -> None:
    first = merge_note("Ask Ada before stopping this.", "one")
    assert first.startswith("Ask Ada before stopping this.\n\n") and "one" in first
    edited = first + "\nAdded below."
    second = merge_note(edited, "two")
    assert "one" not in second and second.count(BEGIN) == second.count(END) == 1
    assert second.startswith("Ask Ada") and second.endswith("Added below.")
    assert merge_note(second, "two") == second


def test_a_torn_frame_is_not_cut_through() -> None:
    torn = f"{BEGIN}\n\nold words, the end mark was deleted"
    merged = merge_note(torn, "new")
    assert "old words" in merged and "new" in merged
    again = merge_note(merged, "newer")
    assert "old words" in again and "newer" in again and "\nnew\n" not in again


def test_an_empty_note_is_ours_alone() -> None:
    assert merge_note("", "note") == merge_note("  \n", "note")
    assert merge_note("", "note").startswith(BEGIN)
