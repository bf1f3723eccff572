"""The figures of the fidelity benchmark, on models whose ranks are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _fidelity_final import Final, RankedRun, Ranking, interval, tokens_needed
from _fidelity_scores import gain_of, mixed
from _fidelity_tables import AUTO, targets
from _tiers import BASE_SHARES, CLEAN, PRIOR, TIERS, tiers, write_tiers

REFERENCES = [np.stack([np.arange(10.0), np.arange(10.0)], axis=1)]  # (10, 2)


def final(method: str, score: float, search: int = 0, seed: int = 0) -> Final:
    scores = np.array([score, score])
    return Final(method, search, seed, 1000, np.ones(2) / 2, scores, {})


def test_a_rank_counts_the_references_that_are_ahead() -> None:
    ranking = Ranking(REFERENCES, [final("best", 20.0), final("middle", 4.5), final("last", -1.0)])
    assert [ranking.samples(m)[0] for m in ("best", "middle", "last")] == [1.0, 6.0, 11.0]
    assert ranking.by_capability("middle")[0].tolist() == [6.0, 6.0]


def test_trainings_of_one_search_count_as_much_as_one_of_another() -> None:
    models = [final("a", 20.0, 0, seed) for seed in range(3)] + [final("a", -1.0, 1)]
    assert Ranking(REFERENCES, models).samples("a")[0] == 6.0


def test_differences_are_of_the_same_references() -> None:
    """Two models between the same references differ by nothing in any resample."""
    ranking = Ranking(REFERENCES, [final("a", 4.4), final("b", 4.6), final("c", 2.5)])
    assert interval(ranking.samples("a") - ranking.samples("b")) == [0.0, 0.0, 0.0]
    mean, low, high = interval(ranking.samples("a") - ranking.samples("c"))
    assert low <= mean <= high <= 0.0 and mean == -2.0


@pytest.mark.parametrize(
    ("wanted", "found"),
    [(1.0, (1.0, True)), (1.5, (2**0.25, True)), (3.0, (2.0, True)), (3.1, (2.0, False))],
)
def test_tokens_are_told_between_budgets_and_never_beyond(
    wanted: float, found: tuple[float, bool]
) -> None:
    budgets, scores = [100, 2**0.5 * 100, 200], [1.0, 2.0, 3.0]
    factor, reached = tokens_needed(budgets, scores, wanted)  # type: ignore[arg-type]
    assert (pytest.approx(factor), reached) == found


def test_a_run_ranks_by_the_units_of_its_first_batch() -> None:
    class Space:
        @staticmethod
        def project(W: np.ndarray) -> np.ndarray:
            return W

    class Surface:
        space = Space()

    values = iter([np.array([[0.0, 10.0], [2.0, 30.0]]), np.array([[1.0, 20.0], [9.0, 90.0]])])
    run = RankedRun(Surface(), 0, values=lambda W: next(values))  # type: ignore[arg-type]
    run.measure_all(np.eye(2))
    merit = run.value(run.measure_all(np.eye(2)))
    assert merit[0] == pytest.approx(0.5)
    assert 0.99 < merit[1] < 1.0
    assert len(run.tried) == 4


def test_a_gain_is_zero_against_itself_and_positive_against_noise() -> None:
    rng = np.random.default_rng(0)
    trained = {"a": rng.normal(size=40), "b": rng.normal(size=40)}
    noise = {name: rng.normal(size=40) for name in trained}
    capabilities = {"x": ["a"], "y": ["b"]}
    assert gain_of(trained, trained, [trained], capabilities) == [0.0, 0.0, 0.0]
    assert gain_of(trained, noise, [trained], capabilities)[1] > 0.3


def test_a_benchmark_that_probabilities_do_not_score_is_merged() -> None:
    merged = {"a": np.ones(2), "b": np.ones(2)}
    found = mixed(merged, {"a": np.full(2, 3.0)}, {"a": 0.5})
    assert found["a"].tolist() == [2.0, 2.0] and found["b"].tolist() == [1.0, 1.0]


def test_the_tiers_are_the_same_each_time_and_differ_in_quality(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for domain in ("general", "prose", "docs", "code", "math"):
        (source / domain).mkdir(parents=True)
        rows = [
            {"id": i, "text": f"{domain} line one {i}\nline two of it\n" * 120} for i in range(300)
        ]
        (source / domain / "train.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    first = tiers(source)
    assert first == tiers(source)
    assert tuple(first) == TIERS == tuple(PRIOR)
    assert sum(PRIOR.values()) == pytest.approx(1.0) == pytest.approx(sum(BASE_SHARES.values()))
    assert set(CLEAN) < set(TIERS)
    sizes = {name: sum(map(len, documents)) for name, documents in first.items()}
    assert sizes["code_very_high"] < 0.2 * sizes["code_high"]
    clean, poor = first["math_very_high"][0], first["math_medium"][0]
    assert "line two of it" in clean and poor.count("line two of it") < 20
    write_tiers(source, tmp_path / "out")
    written = (tmp_path / "out" / "junk.jsonl").read_text().splitlines()
    assert [json.loads(line)["text"] for line in written] == first["junk"]


def tables(**changes: Any) -> dict[str, Any]:
    ours = {
        "method": AUTO,
        "minus_uniform": [-8.0, -10.0, -5.0],
        "minus": {"RegMix": [-1.0, -2.0, 0.1], "CLIMB": [-3.0, -5.0, -1.0]},
    }
    auto = {"proxy": "auto", "rho": {"macro": 0.95}, "rho_top_quarter": {"macro": 0.7}}
    tiers_ = {
        "proxies": [auto],
        "finals": [ours],
        "tokens_uniform_needs": {"macro": 1.6},
        "oracle_share": 0.5,
    }
    return {"tiers": tiers_ | changes}


def test_a_missed_target_is_named_as_missed() -> None:
    met = {target["target"]: target["met"] for target in targets(tables())}
    assert met == {
        "macro Spearman, auto": True,
        "best quarter, auto": False,
        "average rank minus uniform's": True,
        "average rank minus RegMix's": False,
        "average rank minus CLIMB's": True,
        "times the tokens uniform needs": True,
        "share of the way to the oracle": False,
    }
