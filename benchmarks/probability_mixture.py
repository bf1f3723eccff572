"""How fast mixtures are scored from the components' token probabilities.

On the components and tasks of a finished quickstart, on one thread: mixtures a second one by one
and in batches, gradients a second, the time of a whole recommendation, and beside them what a
merge and a score of the merged model take. Rows that are missing are made first, in the run's own
folder. Each figure but the recommendation's is the median of several rounds, after one that does
not count.

Then the same at the size of the paper (arXiv 2602.00747): seven components and its nine
benchmarks, with as many requests as lm-eval's tasks have and simulated tokens. And a study: how
many trials a second a worker finishes where every score comes from token probabilities.
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
from optuna_demix.ensemble import ProbabilityMixture
from optuna_demix.quickstart import STUDY_FILE
from optuna_demix.study import build_objective, build_probabilities, recommend_directly

PAPER = {
    "arc_easy": (2376, 4, 5),
    "hellaswag": (10042, 4, 25),
    "winogrande": (1267, 2, 9),
    "piqa": (1838, 2, 22),
    "social_iqa": (1954, 3, 5),
    "humaneval": (164, 1, 70),
    "mbpp": (500, 1, 70),
    "gsm8k": (1319, 1, 130),
    "minerva_math": (5000, 1, 200),
}
"""Documents and requests for each, as lm-eval's tasks have them, and tokens of a continuation (the
last four: of the right answer), simulated."""
COMPONENTS = 7
_COLUMNS = {"what": "", "seconds": ".6f", "per_second": ".1f"}


def main() -> None:
    """Run it."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--run", type=Path, default=Path("runs/quickstart"))
    given = arguments.parse_args()
    run = run_directory(arguments, given.run)
    quiet()
    config = load_study_config(STUDY_FILE)
    scoring = config.scoring.model_copy(update={"include_path": str(run / "tasks")})
    config = config.model_copy(update={"run_dir": str(run), "scoring": scoring})
    space = space_of(config)
    proxy = build_probabilities(config, space, device="cpu", report=print)
    objective, _ = build_objective(config, space, device="cpu", proxy="merged")
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
    paper = of_the_paper(rounds)
    trials = study_speed(16 if given.quick else 100)
    print(", ".join(f"{name} {value}" for name, value in sizes.items()))
    print_table(rows, _COLUMNS)
    print(", ".join(f"{name} {value}" for name, value in paper["sizes"].items()))
    print_table(paper["rows"], _COLUMNS)
    print_table([trials], {name: ".3f" for name in trials})
    print(found)
    result = {"sizes": sizes, "rows": rows, "paper_size": paper, "study": trials}
    write(given.out, {**provenance(), **result, "recommendation": found.to_dict()})


def of_the_paper(rounds: int) -> dict[str, Any]:
    """Speed and memory for the paper's components and benchmarks, one thread."""
    rng = np.random.default_rng(0)
    counts = np.concatenate(
        [
            rng.poisson(tokens - 1, documents * requests) + 1
            for documents, requests, tokens in PAPER.values()
        ]
    )
    n_tokens = int(counts.sum())
    rows = [-rng.exponential(2.0, n_tokens).astype(np.float32) for _ in range(COMPONENTS)]
    mixture = ProbabilityMixture(rows, counts)
    W = rng.dirichlet(np.ones(COMPONENTS), 16)
    slopes = np.ones((1, len(counts)))
    with threadpool_limits(1):
        batch = _median(lambda: mixture.log_likelihoods(W), rounds) / len(W)
        gradient = _median(lambda: mixture.pull_back(W[0], slopes), rounds)
    return {
        "sizes": {
            "components": COMPONENTS,
            "benchmarks": len(PAPER),
            "requests": len(counts),
            "tokens": n_tokens,
            "mebibytes": mixture.nbytes / 2**20,
            "mebibytes_on_disk": COMPONENTS * n_tokens * 4 / 2**20,
        },
        "rows": [
            {"what": "log-likelihoods", "seconds": batch, "per_second": 1 / batch},
            {"what": "one gradient", "seconds": gradient, "per_second": 1 / gradient},
        ],
    }


def study_speed(n_trials: int) -> dict[str, float]:
    """Trials a second of ``DemixSampler`` on SQLite, where a score costs next to nothing."""
    import tempfile

    import optuna

    from optuna_demix import DemixSampler, MixtureObjective, MixtureSpace

    names = [f"component {i}" for i in range(COMPONENTS)]
    space = MixtureSpace(names)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, sampler in (
            ("demix", DemixSampler(space, seed=0)),
            ("random", optuna.samplers.RandomSampler(seed=0)),
        ):
            study = optuna.create_study(
                storage=f"sqlite:///{folder}/{name}.db",
                directions=["maximize"] * 3,
                sampler=sampler,
            )
            benchmarks = [f"benchmark {i}" for i in range(9)]
            objective = MixtureObjective(
                space,
                None,
                None,
                {f"capability {i}": benchmarks[3 * i : 3 * i + 3] for i in range(3)},
                probabilities=_Cheap(benchmarks),
                shares=dict.fromkeys(benchmarks, 1.0),
            )
            start = time.perf_counter()
            study.optimize(objective, n_trials=n_trials)
            found[f"{name}_per_second"] = n_trials / (time.perf_counter() - start)
    return {"n_trials": float(n_trials), **found}


class _Cheap:
    """Scores that are concave in the weights and cost nothing."""

    def __init__(self, benchmarks: list[str]) -> None:
        self.benchmarks = tuple(benchmarks)
        self._p = np.random.default_rng(0).dirichlet(np.ones(COMPONENTS), len(benchmarks))

    def scores(self, weights: np.ndarray) -> np.ndarray:
        return np.log(np.maximum(weights @ self._p.T, 1e-9))


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
