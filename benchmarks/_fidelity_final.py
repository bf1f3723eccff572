"""Table 3 of ``proxy_fidelity.py``: final mixtures, each trained for real and ranked.

Every method searches the same mixtures for the same composite, with as many training tokens as the
components took: ``DemixSampler`` and the published DeMix schedule score merged proxies, RegMix and
CLIMB train small models. What a method recommends is trained like a reference, with a seed that no
reference has, once for each search.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
from _fidelity_models import FINAL_SEED, PROXY_SEED, FloatArray, Workshop
from _fidelity_scores import Scorer, Scores, capability_scores
from _peers import METHODS, Method, Run
from _surfaces import Surface

from optuna_demix import MixtureSpace

SPREAD_OF = 64  # random proxies that a capability's unit is the spread of


class Proxies:
    """Merged proxies, as a surface that is searched.

    Args:
        scorer: Scores them.
    """

    def __init__(self, scorer: Scorer) -> None:  # noqa: D107
        self._scorer = scorer
        self.space: MixtureSpace = scorer.space
        self.benchmarks = tuple(b for names in scorer.capabilities.values() for b in names)

    @cached_property
    def weights(self) -> FloatArray:
        """What each benchmark counts in the composite (b,): capabilities count alike."""
        random = self.space.sample(SPREAD_OF, np.random.default_rng(0))
        scores = self._scorer.proxies(random)
        spread = capability_scores(scores, self._scorer.capabilities).std(axis=0)
        named = {
            b: 1.0 / (unit * len(names) * len(spread))
            for unit, names in zip(spread, self._scorer.capabilities.values(), strict=True)
            for b in names
        }
        return np.array([named[b] for b in self.benchmarks])

    def observe(self, w: FloatArray, *, seed: int, trial: int) -> FloatArray:
        """Scores (b,) of one proxy."""
        return self.table(self._scorer.proxies(np.atleast_2d(self.space.project(w))))[0]

    def table(self, scores: Scores) -> FloatArray:
        """Scores (n, b) in the order of the benchmarks."""
        return np.stack([scores[b] for b in self.benchmarks], axis=1)


@dataclass(kw_only=True)
class TrainedRun(Run):
    """A search that trains a small model for each mixture.

    Attributes:
        shop: Trains them.
        scorer: Scores them.
        key: Name of their study.
        tokens: Tokens of each.
    """

    shop: Workshop
    scorer: Scorer
    key: str
    tokens: int

    def measure_all(self, W: FloatArray) -> FloatArray:
        """Train and score n more models; returns (n, b)."""
        surface = cast(Proxies, self.surface)
        self.tried += list(np.atleast_2d(W))
        shares = surface.space.data_shares(surface.space.project(np.stack(self.tried)))
        seed = PROXY_SEED + 1 + self.seed
        folders = self.shop.references(self.key, self.tokens, seed, shares)
        return surface.table(self.scorer.models(folders[-len(W) :]))


def final_mixtures(shop: Workshop, scorer: Scorer, seed: int) -> dict[str, FloatArray]:
    """Merge weights (K,) that each method recommends after a search with a seed."""
    proxies = Proxies(scorer)
    surface = cast(Surface, proxies)
    space, n = scorer.space, shop.sizes.n_merged
    found = {
        f"DemixSampler, {n} merged": _only(METHODS["ours"], Run(surface, seed), n),
        f"DeMix as published, {n} merged": _only(
            METHODS["demix_published"], Run(surface, seed), n
        ),
    }
    for count, tokens in shop.sizes.searched:
        for name, method in (("RegMix", "regmix"), ("CLIMB", "climb")):
            key = f"{method}-{count}x{tokens}-{seed}"
            run = TrainedRun(surface, seed, shop=shop, scorer=scorer, key=key, tokens=tokens)
            found[f"{name}, {count} trained"] = _only(METHODS[method], run, count)
    found["prior"] = space.prior
    found["uniform"] = space.project(np.full(len(space), 1.0 / len(space)))
    return found


def _only(method: Method, run: Run, n: int) -> FloatArray:
    """What a method recommends first after n calls."""
    return next(iter(method(run, [n])[n].values()))


def table3(
    shop: Workshop, scorer: Scorer, references: list[Scores]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Ranks of final mixtures among the references.

    Returns:
        A row for each method, best first, and one for each model trained.
    """
    capabilities = scorer.capabilities
    trained = [capability_scores(scores, capabilities) for scores in references]  # each (n, c)
    models: list[dict[str, Any]] = []
    for seed in shop.sizes.final_seeds:
        mixtures = final_mixtures(shop, scorer, seed)
        shares = scorer.space.data_shares(np.stack(list(mixtures.values())))
        folders = shop.references(f"final-{seed}", shop.sizes.reference, FINAL_SEED + seed, shares)
        scores = capability_scores(scorer.models(folders), capabilities)  # (methods, c)
        for i, (name, w) in enumerate(mixtures.items()):
            ahead = np.mean([(t > scores[i]).sum(axis=0) for t in trained], axis=0)
            models.append(
                {
                    "method": name,
                    "seed": seed,
                    "rank": dict(zip(capabilities, (1.0 + ahead).tolist(), strict=True)),
                    "average_rank": float(1.0 + ahead.mean()),
                    "score": dict(zip(capabilities, scores[i].round(4).tolist(), strict=True)),
                    "weights": dict(
                        zip(scorer.space.components, np.round(w, 4).tolist(), strict=True)
                    ),
                    "shares": dict(
                        zip(scorer.space.datasets, shares[i].round(4).tolist(), strict=True)
                    ),
                }
            )
    rows = []
    for name in dict.fromkeys(model["method"] for model in models):
        own = [model for model in models if model["method"] == name]
        ranks = np.array([model["average_rank"] for model in own])
        error = ranks.std(ddof=1) / np.sqrt(len(ranks)) if len(ranks) > 1 else None
        rows.append(
            {
                "method": name,
                "rank": {
                    c: round(float(np.mean([m["rank"][c] for m in own])), 2) for c in capabilities
                },
                "average_rank": round(float(ranks.mean()), 2),
                "se": None if error is None else round(float(error), 2),
            }
        )
    return sorted(rows, key=lambda row: float(row["average_rank"])), models
