"""Whether racing finds as good a mixture from fewer scored items.

The quickstart's components and tasks, one composite objective: the mean of its three
capabilities. Each seed runs one study without racing and one with it, of equally many trials,
``DemixSampler`` proposing, every proxy a real merge that is really scored in blocks. Both studies
of a seed begin with the same mixtures; blocks scored once are not computed again, but counted.

Reported are items scored (those of pruned trials as far as they came) and the regret of the
recommended mixture, which is merged and scored in full: the best composite that any trial or
recommendation of any seed reached, minus its own.

With ``--screening`` trials are screened instead, on surfaces whose true scores are known, see
``_screening.py``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _common import parser, print_table, provenance, quiet, write
from _quickstart import CAPABILITIES, MAX_LENGTH, benchmarks, live_model, run_directory
from numpy.typing import NDArray

from optuna_demix import DemixSampler, MixtureSpace, recommend
from optuna_demix.scoring import BlockScores, HarnessScorer
from optuna_demix.search.objective import MixtureObjective

BLOCKS = 24
P_THRESHOLD = 0.2
SEEDS, TRIALS = 10, 36
QUICK_SEEDS, QUICK_TRIALS = 2, 18
_COLUMNS = {
    "seed": "d",
    "way": "",
    "trials": "d",
    "pruned": "d",
    "items": "d",
    "composite": ".4f",
    "regret": ".4f",
    "seconds": ".1f",
}


class Replay:
    """Merges and scores, and remembers every block: a model and a scorer for an objective.

    Args:
        run: Folder of the quickstart.
    """

    def __init__(self, run: Path) -> None:  # noqa: D107
        self._live = live_model(run)
        self.names = self._live.names
        self.n_items = 0
        self._scorer = HarnessScorer(
            benchmarks(),
            self._live.model,
            self._live.tokenizer,
            include_path=run / "tasks",
            max_length=MAX_LENGTH,
            blocks=BLOCKS,
            shared_prefixes=True,
        )
        self._known: dict[bytes, tuple[list[BlockScores], Iterator[BlockScores]]] = {}
        self._now = b""

    def merge(self, w: NDArray[np.float64]) -> None:
        """Choose the mixture that is scored next."""
        self._now = w.tobytes()
        seen, _ = self._known.get(self._now, ([], None))
        if len(seen) < BLOCKS:
            self._live.merge(w)
            self._known[self._now] = ([], self._scorer.race())

    def race(self) -> Iterator[BlockScores]:
        """The blocks of the mixture, new ones computed."""
        seen, more = self._known[self._now]
        for block in range(BLOCKS):
            if block == len(seen):
                seen.append(next(more))
            self.n_items += sum(seen[block].items.values())
            self.n_items -= sum(seen[block - 1].items.values()) if block else 0
            yield seen[block]

    def score(self) -> dict[str, float]:
        """Score of each benchmark on all items."""
        return dict(list(self.race())[-1].so_far)


def search(replay: Replay, *, seed: int, n_trials: int, racing: float | None) -> dict[str, Any]:
    """Run one study; its figures and those of the mixture it recommends.

    Args:
        replay: Merges and scores.
        seed: Of the sampler.
        n_trials: Number of trials.
        racing: Threshold of the Wilcoxon test that prunes; ``None`` scores all items.
    """
    import optuna

    space = MixtureSpace(list(replay.names))
    objective = MixtureObjective(
        space,
        replay,
        replay,
        {name: list(tasks) for name, tasks in CAPABILITIES.items()},
        weights=dict.fromkeys(CAPABILITIES, 1 / len(CAPABILITIES)),
        racing="block",
    )
    pruner = (
        optuna.pruners.NopPruner()
        if racing is None
        else optuna.pruners.WilcoxonPruner(p_threshold=racing)
    )
    study = optuna.create_study(
        direction="maximize", sampler=DemixSampler(space, seed=seed), pruner=pruner
    )
    replay.n_items = 0
    start = time.perf_counter()
    study.optimize(objective, n_trials=n_trials)
    seconds = time.perf_counter() - start
    items = replay.n_items
    states = [trial.state.name for trial in study.trials]
    recommended = recommend(study, space).merge_weights
    (composite,) = objective.values(objective.score(recommended))
    return {
        "seed": seed,
        "way": "all items" if racing is None else "racing",
        "trials": len(states),
        "pruned": states.count("PRUNED"),
        "items": items,
        "composite": composite,
        "best_trial": study.best_value,
        "seconds": round(seconds, 2),
    }


def conclude(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Regrets of all studies, and how the two ways compare."""
    best = max(max(row["composite"], row["best_trial"]) for row in rows)
    for row in rows:
        row["regret"] = best - row["composite"]
    ways = {way: [r for r in rows if r["way"] == way] for way in ("racing", "all items")}
    items = {way: sum(row["items"] for row in found) for way, found in ways.items()}
    regret = {way: np.array([row["regret"] for row in found]) for way, found in ways.items()}
    difference = regret["racing"] - regret["all items"]  # (seeds,), the same mixtures at first
    error = difference.std(ddof=1) / np.sqrt(len(difference)) if len(difference) > 1 else np.nan
    return {
        "items_ratio": round(items["all items"] / items["racing"], 3),
        "regret_with": round(float(regret["racing"].mean()), 5),
        "regret_without": round(float(regret["all items"].mean()), 5),
        "regret_difference_se": round(float(error), 5),
        "best_composite": best,
    }


def check(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What was aimed at; regrets count as equal within two standard errors of their difference."""
    worse = result["regret_with"] - result["regret_without"]
    bound = 2 * result["regret_difference_se"]
    ratio = result["items_ratio"]
    return [
        {"target": "items fewer by a factor", "value": ratio, "bound": 2.0, "met": ratio >= 2.0},
        {
            "target": "regret no higher (within 2 standard errors)",
            "value": worse,
            "bound": bound,
            "met": bool(worse <= bound),
        },
    ]


def screen(seeds: Sequence[int], n_trials: int, *, keep: float, out: Path | None) -> None:
    """Compare searches with and without screening; write after each seed."""
    from _screening import COLUMNS, compare, summarize

    rows: list[dict[str, Any]] = []
    for seed in seeds:
        rows += compare(seed, n_trials=n_trials, keep=keep)
        result = summarize(rows)
        about = {**provenance(), "seeds": seeds, "trials": n_trials, "keep": keep}
        write(out, {**about, "ways": result, "rows": rows})
    print_table(rows, COLUMNS)
    for way, figures in result.items():
        print(f"{way}: {figures}")


def main() -> None:
    """Run the benchmark from the command line."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--run", type=Path, metavar="DIR", help="run_dir of a quickstart")
    arguments.add_argument(
        "--screening", action="store_true", help="screen on known surfaces instead"
    )
    arguments.add_argument("--keep", type=float, default=0.25, help="share that writes texts")
    arguments.add_argument("--seeds", type=int, default=SEEDS, help="number of seeds")
    arguments.add_argument("--trials", type=int, default=TRIALS, help="trials of a study")
    arguments.add_argument(
        "--p-threshold", type=float, default=P_THRESHOLD, help="of the Wilcoxon test"
    )
    options = arguments.parse_args()
    n_seeds, n_trials = (
        (QUICK_SEEDS, QUICK_TRIALS) if options.quick else (options.seeds, options.trials)
    )
    seeds = list(range(options.seed, options.seed + n_seeds))
    if options.screening:
        quiet()
        screen(seeds, n_trials, keep=options.keep, out=options.out)
        return
    if options.run is None:
        arguments.error("--run DIR or --screening is needed")
    run = run_directory(arguments, options.run)
    quiet()
    replay = Replay(run)
    rows = [
        search(replay, seed=seed, n_trials=n_trials, racing=racing)
        for seed in seeds
        for racing in (None, options.p_threshold)
    ]
    result = conclude(rows)
    print_table(rows, _COLUMNS)
    print({key: value for key, value in result.items()})
    targets = check(result)
    for target in targets:
        verdict = "met   " if target["met"] else "MISSED"
        figures = f"{target['value']:.4f}, required {target['bound']:.4f}"
        print(f"{verdict} {target['target']}: {figures}")
    about = {**provenance(), "quick": options.quick, "seeds": seeds, "blocks": BLOCKS}
    about["p_threshold"] = options.p_threshold
    write(options.out, {**about, **result, "rows": rows, "targets": targets})


if __name__ == "__main__":
    main()
