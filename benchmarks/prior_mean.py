"""What a cheap prediction of the scores is worth to a search, and what a wrong one costs.

The searches are those of ``search_quality.py``: the same surfaces, noise and regret. Each is run
without a prior mean and with three: the noise-free scores themselves (``exact``); a monotone
distortion of them plus a smooth random error, so strong that the rank correlation with the truth
is 0.9 (``biased``); and a smooth random function alone (``useless``). Results are written after
each seed.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from _common import parser, print_table, provenance, write
from _peers import Run, ours
from _surfaces import ANALYTIC, FloatArray, Surface
from scipy.stats import spearmanr

SURFACES = ("interior", "sparse")
PRIORS = ("none", "exact", "biased", "useless")
BUDGETS, SEEDS = (14, 28, 56), 3
QUICK_BUDGETS, QUICK_SEEDS, QUICK_SURFACES = (14,), 1, ("interior",)
_AGREEMENT = 0.9  # rank correlation of the biased prior mean with the truth
_BEND = 1.4  # power of the distortion, about the mean
_LENGTH, _WAVES = 0.4, 64  # length scale and number of waves of a smooth random function
_COLUMNS = {
    "surface": "",
    "prior mean": "",
    "spearman": ".3f",
    **{f"{n} calls": "" for n in BUDGETS},
    "seconds": ".1f",
}

Function = Callable[[FloatArray], FloatArray]


class PriorMean:
    """A function of merge weights that names its benchmarks."""

    def __init__(self, surface: Surface, function: Function) -> None:  # noqa: D107
        self.benchmarks = surface.benchmarks
        self._function = function

    def __call__(self, W: FloatArray) -> FloatArray:
        """Scores (n, b) of merge weights (n, K)."""
        return self._function(W)


def prior_mean(surface: Surface, kind: str, seed: int) -> PriorMean | None:
    """A prior mean of a kind for a surface."""
    if kind == "none":
        return None
    if kind == "exact":
        return PriorMean(surface, surface.law)
    reference = surface.space.sample(surface.reference, np.random.default_rng(0))
    wave = _scaled(_waves(surface, np.random.default_rng([9, seed])), reference)
    if kind == "useless":
        return PriorMean(surface, wave)
    truth = _scaled(surface.law, reference)
    scores, errors = _bent(truth(reference)), wave(reference)
    sizes = np.array(
        [_size(score, error) for score, error in zip(scores.T, errors.T, strict=True)]
    )
    return PriorMean(surface, lambda W: _bent(truth(W)) + sizes * wave(W))


def _bent(z: FloatArray) -> FloatArray:
    return np.asarray(np.sign(z) * np.abs(z) ** _BEND)


def _size(score: FloatArray, error: FloatArray) -> float:
    """How large an error (n,) has to be for the agreement to be as intended."""
    low, high = 0.0, 8.0
    for _ in range(40):
        middle = 0.5 * (low + high)
        agreement = spearmanr(score, score + middle * error).statistic
        low, high = (middle, high) if agreement > _AGREEMENT else (low, middle)
    return low


def _scaled(function: Function, reference: FloatArray) -> Function:
    """The function in units of its spread over the reference, about its mean."""
    values = function(reference)
    center, spread = values.mean(axis=0), values.std(axis=0)
    return lambda W: (function(W) - center) / spread


def _waves(surface: Surface, rng: np.random.Generator) -> Function:
    """A smooth random function (n, b): a Gaussian process by random Fourier features."""
    frequencies = rng.standard_normal((len(surface.space), _WAVES)) / _LENGTH
    phases = rng.uniform(0.0, 2.0 * np.pi, _WAVES)
    amplitudes = rng.standard_normal((_WAVES, len(surface.ceiling)))
    return lambda W: np.cos(W @ frequencies + phases) @ amplitudes


def search(surface: Surface, kind: str, seed: int, budgets: tuple[int, ...]) -> dict[str, Any]:
    """Regret of what is recommended for each budget, and what it took."""
    prior = prior_mean(surface, kind, seed)
    start = time.process_time()
    found = ours(Run(surface, seed), budgets, prior)
    seconds = time.process_time() - start
    regrets = {n: float(surface.regret(found[n]["recommend"])[0]) for n in budgets}
    agreement = None
    if prior is not None:
        W = surface.space.sample(1024, np.random.default_rng(1))
        pairs = zip(prior(W).T, surface.law(W).T, strict=True)
        agreement = float(np.mean([spearmanr(guess, truth).statistic for guess, truth in pairs]))
    return {"regret": regrets, "spearman": agreement, "seconds": seconds}


def summarize(found: dict[tuple[str, str, int], dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over seeds, for each surface and over all of them."""
    rows = []
    surfaces = list(dict.fromkeys(surface for surface, _, _ in found))
    for surface in [*surfaces, "mean"]:
        for kind in PRIORS:
            runs = [
                run for (s, k, _), run in found.items() if k == kind and surface in (s, "mean")
            ]
            row: dict[str, Any] = {"surface": surface, "prior mean": kind}
            for n in runs[0]["regret"]:
                regrets = np.array([run["regret"][n] for run in runs])
                row[f"{n} calls"] = f"{regrets.mean():.3f}"
                row[f"{n} calls, standard error"] = (
                    float(regrets.std(ddof=1) / np.sqrt(len(regrets))) if len(runs) > 1 else None
                )
            if kind != "none":
                row["spearman"] = float(np.mean([run["spearman"] for run in runs]))
            row["seconds"] = float(np.mean([run["seconds"] for run in runs]))
            rows.append(row)
    return rows


def main() -> None:
    """Run it."""
    arguments = parser(__doc__.splitlines()[0])
    given = arguments.parse_args()
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    budgets = QUICK_BUDGETS if given.quick else BUDGETS
    seeds = range(given.seed, given.seed + (QUICK_SEEDS if given.quick else SEEDS))
    source = provenance()
    found: dict[tuple[str, str, int], dict[str, Any]] = {}
    for seed in seeds:
        for name in QUICK_SURFACES if given.quick else SURFACES:
            surface = ANALYTIC[name](seed)
            for kind in PRIORS:
                run = search(surface, kind, seed, budgets)
                found[name, kind, seed] = run
                regrets = ", ".join(f"{n}: {regret:.3f}" for n, regret in run["regret"].items())
                print(f"{name} {kind} {seed}: {regrets} ({run['seconds']:.0f} s)", flush=True)
        rows = summarize(found)
        runs = [
            {"surface": name, "prior mean": kind, "seed": seed, **run}
            for (name, kind, seed), run in found.items()
        ]
        done = sorted({run["seed"] for run in runs})
        write(given.out, {**source, "seeds": done, "rows": rows, "runs": runs})
    print_table(rows, {key: form for key, form in _COLUMNS.items() if any(key in r for r in rows)})


if __name__ == "__main__":
    main()
