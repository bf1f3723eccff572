"""The surfaces that searches are compared on: what each mixture would truly score.

A surface gives several benchmarks, higher is better. Its composite is their mean after each is
divided by its spread over random mixtures; the regret of a mixture is how far its noise-free
composite lies below the best, in units of what the prior mixture lies below it: 0 is the optimum,
1 the prior.

Surfaces drawn at random are another instance for every seed, the same for all methods, so that no
method can be fitted to one of them.
"""

from __future__ import annotations

import functools
import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from _common import write
from _laws import (
    PILE_DOMAINS,
    Accuracy,
    FittedLaw,
    FloatArray,
    RepeatedLaw,
    SkillLaw,
    read_pile_runs,
)

from optuna_demix import MixtureSpace

Law = Callable[[FloatArray], FloatArray]

_ROUNDS = 24  # of the search for the optimum
_PILE_LOSSES = ("pile_cc", "wikipedia_en", "github", "stackexchange", "arxiv", "dm_mathematics")
_DEMIX_PRIOR = (1278.0, 284.0, 69.0, 100.0, 51.0, 141.0, 633.0)  # tokens in its released code


@dataclass(frozen=True)
class Surface:
    """One surface.

    Attributes:
        name: Its name.
        space: The mixtures allowed.
        law: Noise-free scores (n, b) of mixtures (n, K), higher is better.
        ceiling: Score (b,) of a perfect model: ``ceiling - score`` is a positive loss.
        noise: Standard deviation of an observed score, in units of its spread.
        items: Questions of each benchmark; 0: scores are no accuracies, noise is normal.
        version: Changes when the surface does.
        reference: Random mixtures whose scores' spread is a benchmark's unit.
        family: Mixtures in each round of the search for the optimum.
        step: Step of its finite differences; larger where scores are in single precision.
    """

    name: str
    space: MixtureSpace
    law: Law
    ceiling: FloatArray
    noise: float = 0.03
    items: int = 0
    version: str = "1"
    reference: int = 4096
    family: int = 1024
    step: float = 1e-6

    @functools.cached_property
    def spread(self) -> FloatArray:
        """Standard deviation of each benchmark over random mixtures (b,)."""
        random = self.space.sample(self.reference, np.random.default_rng(0))
        return np.asarray(self.law(random).std(axis=0))

    @property
    def benchmarks(self) -> tuple[str, ...]:
        """Names of the benchmarks, b of them."""
        return tuple(f"benchmark {i}" for i in range(len(self.ceiling)))

    @property
    def weights(self) -> FloatArray:
        """What each benchmark counts in the composite (b,)."""
        return 1.0 / (self.spread * len(self.spread))

    def observe(self, w: FloatArray, *, seed: int, trial: int) -> FloatArray:
        """Scores (b,) that a trial would measure; the same noise for the same seed and trial."""
        from scipy.stats import binom, norm

        rng = np.random.default_rng([zlib.crc32(self.name.encode()), seed, trial])
        luck = rng.random(len(self.ceiling))
        score = self.law(np.atleast_2d(w))[0]
        if self.items:
            return np.asarray(binom.ppf(luck, self.items, score) / self.items)
        return np.asarray(score + self.noise * self.spread * norm.ppf(luck))

    def composite(self, W: FloatArray) -> FloatArray:
        """Noise-free composite (n,) of mixtures (n, K)."""
        return np.asarray(self.law(np.atleast_2d(W)) @ self.weights)

    def regret(self, W: FloatArray) -> FloatArray:
        """True regret (n,) of mixtures (n, K): 0 at the optimum, 1 at the prior."""
        best, prior = self.composite(np.stack([self.optimum, self.space.prior]))
        return np.asarray((best - self.composite(W)) / (best - prior))

    @functools.cached_property
    def optimum(self) -> FloatArray:
        """The best mixture (K,): a wide random search, refined by ever smaller moves."""
        rng = np.random.default_rng(1)
        family = self.space.sample(4 * self.family, rng)
        value = self.composite(family)
        for scale in np.logspace(-0.7, -4.5, _ROUNDS):
            kept = np.argsort(-value)[:64]
            parents = family[kept][rng.integers(len(kept), size=self.family)]
            moved = self.space.perturb(parents, scale, rng)
            family = np.concatenate([family[kept], moved])
            value = np.concatenate([value[kept], self.composite(moved)])
        return self._polish(family[int(np.argmax(value))])

    def _polish(self, w: FloatArray) -> FloatArray:
        """Sequential quadratic programming from w; w itself where that is no better."""
        from scipy.optimize import LinearConstraint, minimize

        rows, bounds = self.space._rows
        found = minimize(
            lambda x: -float(self.composite(np.maximum(x, 0.0))[0]),
            w,
            method="SLSQP",
            bounds=[(0.0, 1.0)] * len(w),
            constraints=[
                LinearConstraint(np.ones(len(w)), 1.0, 1.0),
                *([LinearConstraint(rows, -np.inf, bounds)] if len(rows) else []),
            ],
            options={"maxiter": 300, "ftol": 1e-12, "eps": self.step},
        )
        polished = self.space.project(found.x) if np.isfinite(found.x).all() else w
        pair = np.stack([w, polished])
        return np.asarray(pair[int(np.argmax(self.composite(pair)))])


def regmix_law(folder: Path) -> Surface:
    """A law fitted to six losses of the 768 public RegMix runs: 17 domains of the Pile."""
    X, losses = read_pile_runs(folder, _PILE_LOSSES)
    law = FittedLaw.fit(X, losses)
    space = MixtureSpace(list(PILE_DOMAINS), prior=PILE_DOMAINS)
    return Surface("regmix_law", space, _scores_of(law), np.zeros(len(_PILE_LOSSES)))


def quickstart(run_dir: Path) -> Surface:
    """Held-out losses of the quickstart's five real components, merged anew for each mixture.

    Its optimum takes some thousand merges to find, and is kept in the cache of the run.
    """
    from _merges import MergedLosses

    losses = MergedLosses(run_dir)
    names = list(losses.names)
    rest = 0.5 / (len(names) - 1)
    space = MixtureSpace(names, prior={name: rest for name in names} | {names[0]: 0.5})
    surface = Surface(
        "quickstart",
        space,
        _scores_of(losses),
        np.zeros(len(names)),
        noise=0.0,
        version=losses.digest,
        reference=512,
        family=96,
        step=3e-3,
    )
    _recall(surface, run_dir / "cache" / "search_quality.json")
    return surface


def _recall(surface: Surface, path: Path) -> None:
    """Read what is dear to find from a file of the same version, or find and write it."""
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if known.get("version") == surface.version:
        vars(surface).update(  # where cached properties are kept
            spread=np.array(known["spread"]), optimum=np.array(known["optimum"])
        )
        return
    found = {"spread": surface.spread.tolist(), "optimum": surface.optimum.tolist()}
    write(path, {"version": surface.version, **found})


def interior(seed: int) -> Surface:
    """Seven datasets, each of which teaches what no other does: all are in the optimum."""
    rng = np.random.default_rng([1, seed])
    k = 7
    law = _scores_of(
        _skills(
            rng, k, k, n_benchmarks=6, own=np.eye(k), leak=0.05, harm=0.05, bonus=0.1, even=0.5
        )
    )
    return Surface("interior", _with_prior(rng, k, law), law, np.zeros(6))


def sparse(seed: int) -> Surface:
    """Twelve datasets, of which three or four are worth their place: most weights are 0."""
    rng = np.random.default_rng([2, seed])
    k, useful = 12, 4
    own = np.zeros((k, useful))
    own[rng.permutation(k)[:useful], np.arange(useful)] = 1.0
    law = _scores_of(_skills(rng, k, useful, n_benchmarks=5, own=own, leak=0.2, harm=0.5))
    return Surface("sparse", _with_prior(rng, k, law), law, np.zeros(5))


def binomial(seed: int) -> Surface:
    """Nine accuracies of 500 questions each, seven datasets and the prior of DeMix's code."""
    rng = np.random.default_rng([3, seed])
    k, skills = 7, 5
    own = np.eye(k)[:, rng.permutation(k)[:skills]]
    own[rng.random(own.shape) < 0.1] = 1.0
    law = _skills(rng, k, skills, n_benchmarks=9, own=own, leak=0.2, harm=0.4)
    space = MixtureSpace(_names(k), prior=list(_DEMIX_PRIOR))
    accuracy = _accuracies(rng, law, space, steepness=1.5)
    return Surface("binomial", space, accuracy, np.ones(9), items=500)


def conflict(seed: int) -> Surface:
    """Three capabilities that harm each other, six accuracies that rise steeply."""
    rng = np.random.default_rng([4, seed])
    k, capabilities = 8, 3
    camp = np.array([0, 0, 1, 1, 2, 2, 0, 1])
    own = (camp[:, None] == np.arange(capabilities)) * rng.uniform(0.5, 1.0, (k, 1))
    law = _skills(rng, k, capabilities, n_benchmarks=6, own=own, leak=0.05, harm=0.0, mixed=False)
    harm = (own == 0) * rng.uniform(0.3, 0.9, (k, capabilities))
    law = SkillLaw(**{**vars(law), "harm": harm})
    accuracy = _accuracies(rng, law, MixtureSpace(_names(k)), steepness=2.5)
    return Surface("conflict", _with_prior(rng, k, accuracy), accuracy, np.ones(6), noise=0.05)


def capped(seed: int) -> Surface:
    """Ten datasets capped at four epochs, bounds and a group; half of each is general data."""
    rng = np.random.default_rng([5, seed])
    k = 10
    names = _names(k)
    own = np.eye(k)[:, 1:7] + (rng.random((k, 6)) < 0.1)
    law = _skills(rng, k, 6, n_benchmarks=6, own=np.minimum(own, 1.0), leak=0.15, harm=0.3)
    tokens = np.concatenate([[8.0], rng.lognormal(-1.0, 0.8, k - 1)])
    composition = 0.5 * np.eye(k)
    composition[:, 0] += 0.5
    space = MixtureSpace(
        names,
        tokens=dict(zip(names, tokens.tolist(), strict=True)),
        budget=25.0,
        max_epochs=4,
        composition=composition,
        datasets=names,
        lower={names[0]: 0.05},
        upper={names[1]: 0.15},
        groups=[{"name": "late", "members": names[2:5], "upper": 0.35}],
    )
    return Surface("capped", space, _scores_of(law), np.zeros(6))


def _many(k: int, seed: int) -> Surface:
    """Sources of twelve topics, good and poor, none seen more than four times; natural prior."""
    rng = np.random.default_rng([6, k, seed])
    topics, n_benchmarks = 12, 6
    names = _names(k)
    topic = np.concatenate([np.arange(topics), rng.integers(topics, size=k - topics)])
    own = (topic[:, None] == np.arange(topics)) * rng.uniform(0.1, 1.0, (k, 1))
    law = _skills(
        rng, k, topics, n_benchmarks=n_benchmarks, own=own, leak=0.15, harm=0.3, even=0.05
    )
    tokens = rng.lognormal(0.0, 0.8, k)
    budget = float(tokens.sum())  # the prior sees everything once
    repeated = RepeatedLaw(
        law,
        epochs=budget / tokens,
        worth=rng.uniform(1.5, 6.0, k),
        wear=rng.uniform(0.0, 0.002, (k, n_benchmarks)),
    )
    space = MixtureSpace(
        names,
        tokens=dict(zip(names, tokens.tolist(), strict=True)),
        budget=budget,
        max_epochs=4,
    )
    return Surface(f"laws{k}", space, _scores_of(repeated), np.zeros(n_benchmarks))


def laws39(seed: int) -> Surface:
    """As many sources as in the published mixture of a run in two phases: 39."""
    return _many(39, seed)


def laws64(seed: int) -> Surface:
    """As many sources as the largest of the swarms that were published: 64."""
    return _many(64, seed)


ANALYTIC: Mapping[str, Callable[[int], Surface]] = {
    "interior": interior,
    "sparse": sparse,
    "binomial": binomial,
    "conflict": conflict,
    "capped": capped,
    "laws39": laws39,
    "laws64": laws64,
}


def _names(k: int) -> list[str]:
    return [f"dataset {i}" for i in range(k)]


def _with_prior(rng: np.random.Generator, k: int, law: Law) -> MixtureSpace:
    """All mixtures of k datasets; the prior is the middling one of nine drawn at random."""
    drawn = rng.dirichlet(np.full(k, 1.5), size=9)
    scores = law(drawn)
    merit = (scores / scores.std(axis=0)).sum(axis=1)
    return MixtureSpace(_names(k), prior=drawn[np.argsort(merit)[4]].tolist())


def _scores_of(losses: Law) -> Law:
    return lambda W: -losses(W)


def _skills(
    rng: np.random.Generator,
    k: int,
    n_skills: int,
    *,
    n_benchmarks: int,
    own: FloatArray,
    leak: float,
    harm: float,
    bonus: float = 1.0,
    even: float = 0.1,
    mixed: bool = True,
) -> SkillLaw:
    """A random law.

    Args:
        rng: Source of randomness.
        k: Number of datasets.
        n_skills: Number of skills.
        n_benchmarks: Number of benchmarks.
        own: What a share of each dataset is worth for each skill by design (k, n_skills).
        leak: Largest worth of a dataset for a skill that is not its own.
        harm: Largest growth of the log of a skill's loss with a share that is not its own.
        bonus: Largest synergy of two datasets; one pair in ten or so has any.
        even: How far from specialized the benchmarks are.
        mixed: Whether a benchmark needs several skills, rather than one each in turn.
    """
    foreign = own == 0
    pairs = rng.random((n_skills, k, k)) * (rng.random((n_skills, k, k)) < 0.1) * bonus
    if mixed:
        needs = rng.dirichlet(np.full(n_skills, 0.4), size=n_benchmarks).T + even
    else:
        needs = np.eye(n_skills)[:, np.arange(n_benchmarks) % n_skills]
    return SkillLaw(
        transfer=own * rng.uniform(0.7, 1.0, own.shape) + foreign * leak * rng.random(own.shape),
        synergy=(pairs + pairs.transpose(0, 2, 1)) * (1.0 - np.eye(k)),
        harm=foreign * harm * rng.random(own.shape),
        gain=rng.uniform(0.6, 1.4, n_skills),
        offset=rng.uniform(0.01, 0.06, n_skills),
        exponent=rng.uniform(0.25, 0.6, n_skills),
        floor=rng.uniform(0.5, 1.5, n_skills),
        needs=needs / needs.sum(axis=0),
    )


def _accuracies(
    rng: np.random.Generator, law: SkillLaw, space: MixtureSpace, *, steepness: float
) -> Accuracy:
    """Accuracies whose rise lies among the losses of random mixtures."""
    losses = law(space.sample(4096, np.random.default_rng(0)))
    b = losses.shape[1]
    quantiles = rng.uniform(0.2, 0.6, b)
    return Accuracy(
        law,
        middle=np.array(
            [np.quantile(loss, q) for loss, q in zip(losses.T, quantiles, strict=True)]
        ),
        slope=steepness / losses.std(axis=0),
        chance=rng.choice([0.0, 0.25, 0.5], b),
        top=rng.uniform(0.6, 0.95, b),
    )
