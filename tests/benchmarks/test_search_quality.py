from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import search_quality as quality


def record(method: str, seed: int, regret: float, **more: Any) -> dict[str, Any]:
    return {
        "surface": "sparse",
        "method": method,
        "seed": seed,
        "version": quality.version_of(method),
        "surface_version": "1",
        "regrets": {"28": {"one": regret, **more}},
        "best_tried": {"28": 0.0},
        "seconds": 1.0,
    }


def records() -> dict[quality.Cell, dict[str, Any]]:
    found = [record("ours", seed, 0.1 + 0.1 * seed) for seed in range(2)]
    found += [record("gp", seed, 0.4, other=0.1 * seed) for seed in range(2)]
    found += [record("demix_published", seed, 0.8) for seed in range(2)]
    return {quality.Cell(r["surface"], r["method"], r["seed"]): r for r in found}


def test_a_method_counts_with_the_better_way_to_recommend() -> None:
    rows, counted = quality.summarize(records(), [28])
    gp = next(row for row in rows if row["method"] == "gp")
    assert gp == {
        "surface": "sparse",
        "budget": 28,
        "method": "gp",
        "regret_mean": 0.05,
        "regret_se": 0.05,
        "seeds": 2,
    }
    assert counted == {"sparse, 28, gp": "other"}


def test_the_summary_names_the_best_peer() -> None:
    rows, _ = quality.summarize(records(), [28])
    assert quality.summary_of(quality.means_over_surfaces(rows)) == {
        "28": {
            "ours": 0.15,
            "demix_published": 0.8,
            "best_peer": 0.05,
            "best_peer_name": "gp",
        }
    }


def test_targets_name_what_was_missed() -> None:
    rows, _ = quality.summarize(records(), [28])
    summary = quality.summary_of(quality.means_over_surfaces(rows))
    verdicts = {t["target"]: t["met"] for t in quality.check(rows, summary)}
    assert verdicts == {
        "mean at most half of published DeMix": True,
        "mean at most the best peer (gp)": False,
        "sparse: at most the best peer (gp) + its error": False,
    }


def test_a_cached_search_is_used_only_for_the_same_code_and_budgets() -> None:
    old = record("gp", 0, 0.4)
    assert quality.is_current(old, [28], "1")
    assert not quality.is_current(old, [28, 56], "1")
    assert not quality.is_current(old, [28], "2")
    assert not quality.is_current({**old, "version": "0"}, [28], "1")


def test_a_line_cut_short_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "cache.jsonl"
    lines = [json.dumps(record("gp", 0, 0.4)), json.dumps(record("gp", 0, 0.2))]
    path.write_text("\n".join([*lines, '{"surface": "spa']), encoding="utf-8")
    (found,) = quality.read_cache(path).values()
    assert found["regrets"]["28"]["one"] == 0.2
