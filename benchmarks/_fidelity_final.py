"""Final mixtures of ``proxy_fidelity.py``: each method searches, its mixtures are then trained.

All methods seek the same thing, a high mean rank over the capabilities, with as many training
tokens as the components took. Those that score proxies differ only in the proxy; RegMix and CLIMB
train small models. What a search recommends is trained like a reference, with seeds that no
reference has.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from _fidelity_models import FINAL_SEED, PROXY_SEED, FloatArray, Workshop
from _fidelity_scores import Scorer, capability_scores
from _peers import Run, climb, demix, regmix
from _surfaces import Surface

from optuna_demix import MixtureSpace

N_MERGED = 112  # proxies of a search
REGMIX_LEAF = 5  # fewest rows of a leaf: with LightGBM's 20, so few models predict a constant

Values = Callable[[FloatArray], FloatArray]  # merge weights (n, K) -> capabilities (n, c)


@dataclass(frozen=True)
class _Space:
    """What the peers know of a surface: its mixtures."""

    space: MixtureSpace


@dataclass(kw_only=True)
class RankedRun(Run):
    """A search for the mean rank over capabilities, by values that are measured in batches.

    Attributes:
        values: Measures them.
        units: Mean and spread (c,) of the first batch, which ranks refer to.
    """

    values: Values
    units: tuple[FloatArray, FloatArray] | None = field(default=None)

    def restart(self) -> None:
        """Forget what was measured."""
        super().restart()
        self.units = None

    def measure_all(self, W: FloatArray) -> FloatArray:
        """Capabilities (n, c) of n more trials."""
        self.tried += list(np.atleast_2d(W))
        Y = self.values(self.surface.space.project(np.atleast_2d(W)))
        if self.units is None:
            self.units = Y.mean(axis=0), np.maximum(Y.std(axis=0), 1e-12)
        return Y

    def measure(self, w: FloatArray) -> FloatArray:
        """Capabilities (c,) of one more trial."""
        return np.asarray(self.measure_all(w)[0])

    def value(self, scores: FloatArray) -> FloatArray:
        """Mean percentile rank (n,) of capabilities (n, c), as normal ones would have it."""
        from scipy.stats import norm

        assert self.units is not None
        mean, spread = self.units
        return np.asarray(norm.cdf((scores - mean) / spread).mean(axis=1))


@dataclass
class Trained:
    """Capabilities of small models, trained as they are asked for.

    Attributes:
        shop: Trains them.
        scorer: Scores them.
        key: Name of their study.
        tokens: Tokens of each.
        seed: Of their training.
    """

    shop: Workshop
    scorer: Scorer
    key: str
    tokens: int
    seed: int
    _shares: list[FloatArray] = field(default_factory=list)

    def __call__(self, W: FloatArray) -> FloatArray:
        """Train and score n more models; returns (n, c)."""
        self._shares += list(self.scorer.space.data_shares(W))
        folders = self.shop.references(self.key, self.tokens, self.seed, np.stack(self._shares))
        scores = self.scorer.models(folders[-len(W) :])
        return capability_scores(scores, self.scorer.capabilities)


def merged_values(scorer: Scorer) -> Values:
    """Capabilities of merged proxies."""
    return lambda W: capability_scores(scorer.proxies(W), scorer.capabilities)


def probability_values(scorer: Scorer) -> Values:
    """Capabilities of probability mixtures."""
    return lambda W: capability_scores(scorer.probabilities(W), scorer.capabilities)


def auto_values(scorer: Scorer) -> Values:
    """Capabilities as ``proxy: auto`` has them."""
    return lambda W: capability_scores(scorer.auto(W), scorer.capabilities)


# What the methods recommend ------------------------------------------------------------------


def ours(
    scorer: Scorer,
    measure: Values,
    seed: int,
    *,
    n_trials: int = N_MERGED,
    prior_mean: Values | None = None,
) -> FloatArray:
    """Merge weights (K,) that ``recommend`` gives after a search by ``DemixSampler``."""
    import optuna

    from optuna_demix import DemixSampler, recommend

    space = scorer.space
    more: dict[str, Any] = {} if prior_mean is None else {"prior_mean": prior_mean}
    study = optuna.create_study(
        directions=["maximize"] * len(scorer.capabilities),
        sampler=DemixSampler(space, seed=seed, **more),
    )

    def objective(trial: optuna.Trial) -> list[float]:
        w = np.array(list(space.suggest(trial).values()))
        return [float(value) for value in measure(w[None])[0]]

    study.optimize(objective, n_trials=n_trials)
    return np.array(list(recommend(study, space).merge_weights.values()))


def direct(scorer: Scorer, values: Values, seed: int) -> FloatArray:
    """The best merge weights (K,) of a function that costs nothing."""
    from optuna_demix.search.direct import optimize

    return optimize(scorer.space, values, seed=seed).weights


def by_probabilities(scorer: Scorer, seed: int) -> FloatArray:
    """The optimum of the probability mixture, which needs no search."""
    return direct(scorer, probability_values(scorer), seed)


def oracle_values(
    weights: FloatArray, references: Sequence[FloatArray], seed: int
) -> tuple[Values, FloatArray]:
    """A surrogate of the references themselves.

    Args:
        weights: Their merge weights (n, K).
        references: Their capabilities (n, c) for each training seed.
        seed: Of the surrogate.

    Returns:
        Its prediction, and its held-out Spearman correlation (c,).
    """
    from scipy.stats import spearmanr

    from optuna_demix.surrogate import Surrogate

    Y = np.mean(references, axis=0)
    surrogate = Surrogate(seed=seed).fit(weights, Y)
    held_out = surrogate.held_out_
    rho = [float(spearmanr(held_out[:, c], Y[:, c])[0]) for c in range(Y.shape[1])]
    return lambda W: np.asarray(surrogate.predict(W)), np.array(rho)


def published(scorer: Scorer, values: Values, seed: int, n: int = N_MERGED) -> FloatArray:
    """What the published DeMix schedule gives."""
    run = RankedRun(cast(Surface, _Space(scorer.space)), seed, values=values)
    return next(iter(_plan(demix, run, n).values()))


def small_models(
    shop: Workshop, scorer: Scorer, method: str, count: int, tokens: int, seed: int
) -> FloatArray:
    """What RegMix or CLIMB gives after training small models."""
    values = Trained(
        shop, scorer, f"{method}-{count}x{tokens}-{seed}", tokens, PROXY_SEED + 1 + seed
    )
    run = RankedRun(cast(Surface, _Space(scorer.space)), seed, values=values)
    if method == "regmix":
        return next(iter(_plan(lambda r: regmix(r, leaf=REGMIX_LEAF), run, count).values()))
    return next(iter(_plan(climb, run, count).values()))


def _plan(method: Any, run: RankedRun, n: int) -> dict[str, FloatArray]:
    plan = method(run)
    run.restart()
    space = run.surface.space
    return {how: np.asarray(space.project(w)) for how, w in plan(n).items()}


# Training them -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Final:
    """One final model.

    Attributes:
        method: What recommended its mixture.
        search: Seed of the search.
        seed: Seed of its training.
        tokens: What it was trained on.
        weights: Merge weights (K,) of its mixture.
        scores: Its capabilities (c,).
        benchmarks: Its score by benchmark.
    """

    method: str
    search: int
    seed: int
    tokens: int
    weights: FloatArray
    scores: FloatArray
    benchmarks: Mapping[str, float]


def train_finals(
    shop: Workshop,
    scorer: Scorer,
    mixtures: Mapping[str, Sequence[FloatArray]],
    tokens: int,
    seeds: Sequence[int],
) -> list[Final]:
    """Train what each search of each method recommends, once for every seed.

    A mixture that two methods agree on is trained once.
    """
    finals = []
    for method, searches in mixtures.items():
        for search, w in enumerate(searches):
            w = np.round(np.asarray(w), 6) / np.round(np.asarray(w), 6).sum()
            shares = scorer.space.data_shares(w[None])
            name = hashlib.sha256(np.round(shares, 6).tobytes()).hexdigest()[:12]
            for seed in seeds:
                key = f"final-{name}-{tokens}-{seed}"
                folders = shop.references(key, tokens, FINAL_SEED + seed, shares)
                scores = scorer.models(folders)
                capabilities = capability_scores(scores, scorer.capabilities)[0]
                by_benchmark = {b: float(v[0]) for b, v in scores.items()}
                finals.append(Final(method, search, seed, tokens, w, capabilities, by_benchmark))
    return finals


# What they say -------------------------------------------------------------------------------


class Ranking:
    """Average ranks of final models among the references, and how sure differences are.

    A resample draws references, and for each method searches and then trainings of each.

    Args:
        references: Capabilities (n, c) of the references, for each training seed.
        finals: The models.
        resamples: Number of resamples.
    """

    def __init__(
        self, references: Sequence[FloatArray], finals: Sequence[Final], resamples: int = 4000
    ) -> None:
        self.methods = list(dict.fromkeys(final.method for final in finals))
        scores = np.stack([final.scores for final in finals])  # (m, c)
        # (m, n, c): share of the training seeds whose reference is ahead of the model
        self._ahead = np.mean(
            [reference[None] > scores[:, None] for reference in references], axis=0
        )
        self._n = len(references[0])
        rng = np.random.default_rng(23)
        drawn = rng.multinomial(self._n, np.full(self._n, 1.0 / self._n), size=resamples)
        self._reference_weights = np.concatenate([np.ones((1, self._n)), drawn])  # (1 + B, n)
        self._model_weights = {
            method: _resampled(finals, method, resamples, rng) for method in self.methods
        }

    def samples(self, method: str) -> FloatArray:
        """Average rank over capabilities (1 + B,): as measured, then each resample."""
        return np.asarray(self.by_capability(method).mean(axis=1))

    def by_capability(self, method: str) -> FloatArray:
        """Rank in each capability (1 + B, c)."""
        ahead = np.einsum(
            "bm,mnc,bn->bc",
            self._model_weights[method],
            self._ahead,
            self._reference_weights,
            optimize=True,
        )
        return np.asarray(1.0 + ahead)

    def scores(self, method: str, finals: Sequence[Final]) -> FloatArray:
        """Mean capabilities (1 + B, c) over the models of a method."""
        scores = np.stack([final.scores for final in finals])
        return np.asarray(self._model_weights[method] @ scores)


def _resampled(
    finals: Sequence[Final], method: str, resamples: int, rng: np.random.Generator
) -> FloatArray:
    """Weight (1 + B, m) of each model in the mean of a method, first the plain mean."""
    rows = [i for i, final in enumerate(finals) if final.method == method]
    searches = sorted({finals[i].search for i in rows})
    groups = [[i for i in rows if finals[i].search == search] for search in searches]
    weights = np.zeros((1 + resamples, len(finals)))
    for group in groups:
        weights[0, group] = 1.0 / (len(group) * len(groups))
    for b in range(1, 1 + resamples):
        for g in rng.integers(len(groups), size=len(groups)):
            group = groups[g]
            for i in rng.integers(len(group), size=len(group)):
                weights[b, group[i]] += 1.0 / (len(group) * len(groups))
    return weights


def interval(samples: FloatArray) -> list[float]:
    """As measured, and the ends of its 95 % interval."""
    low, high = np.quantile(samples[1:], [0.025, 0.975])
    return [round(float(samples[0]), 2), round(float(low), 2), round(float(high), 2)]


def tokens_needed(
    budgets: Sequence[int], scores: Sequence[float], wanted: float
) -> tuple[float, bool]:
    """Tokens at which the uniform mixture reaches a score, in units of the first budget.

    Between two budgets the score is linear in the logarithm of the tokens.

    Returns:
        The multiple, and whether it was reached: if not, it is the largest budget's.
    """
    if scores[0] >= wanted:
        return 1.0, True
    for i in range(1, len(budgets)):
        if scores[i] >= wanted:
            part = (wanted - scores[i - 1]) / (scores[i] - scores[i - 1])
            low, high = np.log(budgets[i - 1]), np.log(budgets[i])
            return float(np.exp(low + part * (high - low)) / budgets[0]), True
    return budgets[-1] / budgets[0], False
