"""How fast mixtures are scored from the components' token probabilities.

On the components and tasks of a finished quickstart, on one thread: mixtures a second one by one
and in batches, gradients a second, the time of a whole recommendation, and beside them what a
merge and a score of the merged model take. Rows that are missing are made first, in the run's own
folder. Each figure but the recommendation's is the median of several rounds, after one that does
not count.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _common import parser, print_table, provenance, quiet, write
from _quickstart import run_directory
from threadpoolctl import threadpool_limits

from optuna_demix.config import load_study_config
from optuna_demix.config.space import space_of
from optuna_demix.study import build_objective, build_probabilities, recommend_directly

STUDY = Path(__file__).resolve().parent.parent / "studies" / "quickstart" / "study.yaml"
_COLUMNS = {"what": "", "seconds": ".6f", "per_second": ".1f"}


def main() -> None:
    """Run it."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--run", type=Path, default=STUDY.parents[2] / "runs" / "quickstart")
    given = arguments.parse_args()
    run = run_directory(arguments, given.run)
    quiet()
    config = load_study_config(STUDY)
    scoring = config.scoring.model_copy(update={"include_path": str(run / "tasks")})
    config = config.model_copy(update={"run_dir": str(run), "scoring": scoring})
    space = space_of(config)
    proxy = build_probabilities(config, space, device="cpu", report=print)
    objective, _ = build_objective(config, space, device="cpu")
    W = space.sample(512, np.random.default_rng(given.seed))
    rounds = 3 if given.quick else 9

    def row(what: str, act: Callable[[], object], count: int = 1) -> dict[str, Any]:
        seconds = _median(act, rounds) / count
        return {"what": what, "seconds": seconds, "per_second": 1 / seconds}

    def one_by_one() -> None:
        for w in W[:64]:
            proxy.scores(w[None])

    slope = np.ones((1, proxy.mixture.n_requests))
    with threadpool_limits(1):
        rows = [
            row("scores, in batches of 512", lambda: proxy.scores(W), len(W)),
            row("scores, one by one", one_by_one, 64),
            row("log-likelihoods", lambda: proxy.mixture.log_likelihoods(W), len(W)),
            row("one gradient", lambda: proxy.mixture.pull_back(W[0], slope)),
            row("scores through lm-eval's code", lambda: _replayed(proxy, W[:1])),
            row("merge and score", lambda: objective.score(W[0])),
        ]
        start = time.perf_counter()
        found = recommend_directly(config, space, proxy)
        seconds = time.perf_counter() - start
    rows.append({"what": "recommendation", "seconds": seconds})
    sizes = {
        "components": proxy.mixture.n_components,
        "benchmarks": len(proxy.benchmarks),
        "requests": proxy.mixture.n_requests,
        "tokens": proxy.mixture.n_tokens,
        "mebibytes": proxy.mixture.nbytes / 2**20,
        "through_lm_eval": list(proxy.slow),
    }
    print(", ".join(f"{name} {value}" for name, value in sizes.items()))
    print_table(rows, _COLUMNS)
    print(found)
    write(
        given.out,
        {**provenance(), "sizes": sizes, "rows": rows, "recommendation": found.to_dict()},
    )


def _replayed(proxy: Any, W: np.ndarray) -> None:
    for likelihoods in proxy.mixture.log_likelihoods(W):
        proxy.replay.scores(likelihoods)


def _median(act: Callable[[], object], rounds: int) -> float:
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        act()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


if __name__ == "__main__":
    main()
