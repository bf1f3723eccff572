"""Screening on surfaces whose true scores are known: texts written against regret.

The surface ``binomial``: nine accuracies of 500 questions, of which as many as in the paper, four,
are taken to come from texts. What stands for them is a smooth score that agrees with the true one
to a rank correlation of 0.9 over random mixtures. Each seed runs one search in which every trial
writes texts and one that is screened, of equally many trials; the former is also read after as
many trials as the latter let write.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from _surfaces import binomial
from prior_mean import prior_mean

from optuna_demix import DemixSampler, MixtureObjective, recommend
from optuna_demix.scoring import CheapScores

if TYPE_CHECKING:
    from _surfaces import Surface
    from numpy.typing import NDArray

    from optuna_demix.search import Recommendation

TEXTS = 4
COLUMNS = {
    "seed": "d",
    "way": "",
    "trials": "d",
    "written": "d",
    "regret": ".4f",
    "regret_best_trial": ".4f",
    "seconds": ".1f",
}


class Proxy:
    """A model and a scorer: what is observed of a surface.

    Args:
        surface: The surface.
        seed: Of the noise.
    """

    def __init__(self, surface: Surface, seed: int) -> None:  # noqa: D107
        self.names = surface.space.components
        self._surface, self._seed = surface, seed
        self._cheap = prior_mean(surface, "biased", seed)
        self.trial = -1

    def merge(self, w: NDArray[np.float64]) -> None:
        """Choose the mixture that is scored next."""
        self._w = w
        self.trial += 1

    def score(self) -> dict[str, float]:
        """Score of each benchmark."""
        seen = self._surface.observe(self._w, seed=self._seed, trial=self.trial)
        return dict(zip(self._surface.benchmarks, seen.tolist(), strict=True))

    def score_cheaply(self, *, seed: int | None = None) -> CheapScores:
        """Scores of benchmarks without texts, and what stands for the others."""
        scores = self.score()
        cheap = self._cheap(self._w[None])[0].tolist()
        texts = self._surface.benchmarks[:TEXTS]
        return CheapScores(
            {name: score for name, score in scores.items() if name not in texts},
            dict(zip(texts, cheap, strict=False)),
        )

    def score_screened(self) -> dict[str, float]:
        """All scores."""
        return self.score()


def compare(seed: int, *, n_trials: int, keep: float) -> list[dict[str, Any]]:
    """Rows of one seed."""
    import optuna

    surface = binomial(seed)
    rows = []
    studies = {}
    for way, share in (("screened", keep), ("all write", None)):
        proxy = Proxy(surface, seed)
        objective = MixtureObjective(
            surface.space,
            proxy,
            proxy,
            {name: [name] for name in surface.benchmarks},
            weights=dict(zip(surface.benchmarks, surface.weights.tolist(), strict=True)),
            keep=share,
        )
        study = optuna.create_study(
            direction="maximize", sampler=DemixSampler(surface.space, seed=seed)
        )
        start = time.process_time()
        study.optimize(objective, n_trials=n_trials)
        studies[way] = study
        rows.append(_row(surface, study, seed, way, time.process_time() - start))
    begun = optuna.create_study(
        direction="maximize", sampler=DemixSampler(surface.space, seed=seed)
    )
    for name, value in studies["all write"].user_attrs.items():
        begun.set_user_attr(name, value)
    begun.add_trials(studies["all write"].trials[: rows[0]["written"]])
    rows.append(_row(surface, begun, seed, "all write, as many texts", 0.0))
    return rows


def _row(surface: Surface, study: Any, seed: int, way: str, seconds: float) -> dict[str, Any]:
    found: Recommendation = recommend(study)
    space = surface.space
    best = study.best_trial
    weights = {
        "regret": [found.merge_weights[name] for name in space.components],
        "regret_best_trial": [best.params[name] for name in space.param_names],
    }
    states = [trial.state.name for trial in study.trials]
    return {
        "seed": seed,
        "way": way,
        "trials": len(states),
        "written": states.count("COMPLETE"),
        **{key: float(surface.regret(np.array([w]))[0]) for key, w in weights.items()},
        "seconds": round(seconds, 2),
    }


def summarize(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What screening costs and gains, over the seeds."""
    names = dict.fromkeys(row["way"] for row in rows)
    ways = {way: [row for row in rows if row["way"] == way] for way in names}
    regrets = {way: np.array([row["regret"] for row in found]) for way, found in ways.items()}
    result: dict[str, Any] = {}
    for way, found in ways.items():
        result[way] = {
            "written": round(float(np.mean([row["written"] for row in found])), 2),
            "regret": round(float(regrets[way].mean()), 5),
        }
        apart = regrets["screened"] - regrets[way]
        if way != "screened" and len(apart) > 1:
            error = apart.std(ddof=1) / np.sqrt(len(apart))
            result[way]["screened_less_this"] = round(float(apart.mean()), 5)
            result[way]["standard_error"] = round(float(error), 5)
    return result
