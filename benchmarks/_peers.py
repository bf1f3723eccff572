"""The rivals of ``DemixSampler``: Optuna's samplers, and data-mixing methods as published.

A method is a function of a :class:`Run`, which measures mixtures one after another with the noise
of their trial numbers, and of the budgets. It returns, for each budget, one recommended mixture
for each way its users might pick it.

- Methods that never look at their budget (Optuna's samplers, ours) run once to the largest budget;
  what they recommend for a smaller one comes from the first trials alone.
- Methods that plan with their budget (DeMix, RegMix, CLIMB, Olmix) run anew for each.

Nothing here imports the search of this package, except for ``ours``. Optuna's samplers know no
simplex: their parameters are normalized and projected on the constraints, and their first trial is
the prior, as a user would enqueue it. Methods that know only bounds may propose mixtures outside
the constraints; these are measured as they are, and what is recommended at last is projected.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from _laws import FloatArray

if TYPE_CHECKING:
    import optuna
    from _surfaces import Surface

Recommended = dict[str, FloatArray]  # how it was picked -> merge weights (K,)
Method = Callable[["Run", Sequence[int]], dict[int, Recommended]]

Fit = Callable[[FloatArray, FloatArray, FloatArray], FloatArray]  # X, y, pool -> predictions

DEMIX_SMALL = 56  # calls up to which its code uses Ridge
DEMIX_POOL, DEMIX_DRAWN, DEMIX_TOP, DEMIX_AVERAGE = 200_000, 512_000, 1280, 128
_CODE_CONTROLS = {"learning_rate": 0.01, "n_estimators": 300, "random_state": 42}
_MINIMUM = 2e-4  # shares below it are set to 0 (RegMix, DeMix)


@dataclass
class Run:
    """One search on one surface.

    Attributes:
        surface: What is searched.
        seed: Seed of method and noise.
        tried: Mixtures (K,) measured so far.
    """

    surface: Surface
    seed: int
    tried: list[FloatArray] = field(default_factory=list)

    @property
    def rng(self) -> np.random.Generator:
        """The method's own randomness, the same each time it is asked for."""
        return np.random.default_rng([self.seed, 1])

    def restart(self) -> None:
        """Forget what was measured, for another budget."""
        self.tried = []

    def measure(self, w: FloatArray) -> FloatArray:
        """Scores (b,) of one more trial."""
        scores = self.surface.observe(w, seed=self.seed, trial=len(self.tried))
        self.tried.append(np.asarray(w))
        return scores

    def measure_all(self, W: FloatArray) -> FloatArray:
        """Scores (n, b) of n more trials."""
        return np.stack([self.measure(w) for w in W])

    def value(self, scores: FloatArray) -> FloatArray:
        """Composite (n,) of measured scores (n, b): the one value of a single objective."""
        return np.asarray(scores @ self.surface.weights)


# Optuna's samplers ---------------------------------------------------------------------------


def normalized(u: FloatArray) -> FloatArray:
    """Shares (K,) of parameters in [0, 1]: divided by their sum."""
    return np.asarray(u / u.sum()) if u.sum() > 0 else np.full(len(u), 1.0 / len(u))


def of_exponentials(u: FloatArray) -> FloatArray:
    """Shares (K,) of parameters in [0, 1], as Optuna's FAQ has it: uniform on the simplex."""
    return normalized(-np.log(np.clip(u, 1e-12, 1.0)))


def _inverse(shares: FloatArray, to_shares: Callable[[FloatArray], FloatArray]) -> FloatArray:
    """Parameters (K,) in [0, 1] that stand for shares (K,)."""
    return shares / shares.max() if to_shares is normalized else np.exp(-shares)


def optuna_sampler(
    make: Callable[[int], optuna.samplers.BaseSampler],
    to_shares: Callable[[FloatArray], FloatArray] = normalized,
    *,
    posterior: bool = False,
) -> Method:
    """A sampler of Optuna on one parameter in [0, 1] for each component.

    Args:
        make: The sampler of a seed.
        to_shares: Shares of the parameters.
        posterior: Recommend the best posterior mean of a Gaussian process too.
    """

    def search(run: Run, budgets: Sequence[int]) -> dict[int, Recommended]:
        import optuna

        space = run.surface.space
        names = [f"u{i}" for i in range(len(space))]

        def mixture(u: FloatArray) -> FloatArray:
            return space.project(to_shares(u))

        def objective(trial: optuna.Trial) -> float:
            u = np.array([trial.suggest_float(name, 0.0, 1.0) for name in names])
            return float(run.value(run.measure(mixture(u))))

        study = optuna.create_study(direction="maximize", sampler=make(run.seed))
        study.enqueue_trial(dict(zip(names, _inverse(space.prior, to_shares), strict=True)))
        study.optimize(objective, n_trials=max(budgets))
        U = np.array([[trial.params[name] for name in names] for trial in study.trials])
        values = np.array([trial.value for trial in study.trials])
        picked: dict[int, Recommended] = {}
        for n in budgets:
            picked[n] = {"best observed": mixture(U[int(np.argmax(values[:n]))])}
            if posterior:
                u = best_posterior_mean(U[:n], values[:n], np.random.default_rng([run.seed, n]))
                picked[n]["best posterior mean"] = mixture(u)
        return picked

    return search


def best_posterior_mean(U: FloatArray, values: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Parameters (K,) with the best posterior mean of the process that ``GPSampler`` fits.

    The mean is climbed from the best trials by random moves, anywhere in the unit cube.
    """
    import torch
    from optuna._gp import gp, prior

    k = U.shape[1]
    process = gp.fit_kernel_params(
        X=U,
        Y=(values - values.mean()) / max(float(values.std()), 1e-12),
        is_categorical=np.zeros(k, dtype=bool),
        log_prior=prior.default_log_prior,
        minimum_noise=prior.DEFAULT_MINIMUM_NOISE_VAR,
        deterministic_objective=False,
    )

    def mean(points: FloatArray) -> FloatArray:
        with torch.no_grad():
            return np.asarray(process.posterior(torch.from_numpy(points))[0].numpy())

    points, merit = U, mean(U)
    for scale in np.logspace(-0.7, -2.5, 12):
        kept = np.argsort(-merit)[:16]
        moved = points[kept][rng.integers(len(kept), size=512)]
        moves = rng.normal(0.0, scale, moved.shape) * (rng.random(moved.shape) < 0.5)
        moved = np.clip(moved + moves, 0.0, 1.0)
        points = np.concatenate([points[kept], moved])
        merit = np.concatenate([merit[kept], mean(moved)])
    return np.asarray(points[int(np.argmax(merit))])


def random_search(seed: int) -> optuna.samplers.BaseSampler:
    """Optuna's RandomSampler."""
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=seed)


def tpe(seed: int) -> optuna.samplers.BaseSampler:
    """Optuna's TPESampler with its defaults."""
    from optuna.samplers import TPESampler

    return TPESampler(seed=seed)


def gp(seed: int) -> optuna.samplers.BaseSampler:
    """Optuna's GPSampler with its defaults."""
    from optuna.samplers import GPSampler

    return GPSampler(seed=seed)


def cma_es(seed: int) -> optuna.samplers.BaseSampler:
    """Optuna's CmaEsSampler with its defaults."""
    from optuna.samplers import CmaEsSampler

    return CmaEsSampler(seed=seed)


# Data-mixing methods -------------------------------------------------------------------------


def for_each_budget(prepare: Callable[[Run], Callable[[int], Recommended]]) -> Method:
    """A method that plans with its budget, from what it prepares once for all of them."""

    def search(run: Run, budgets: Sequence[int]) -> dict[int, Recommended]:
        picked: dict[int, Recommended] = {}
        plan = prepare(run)
        for n in budgets:
            run.restart()
            inside = {how: run.surface.space.project(w) for how, w in plan(n).items()}
            if len(run.tried) != n:
                raise AssertionError(f"{len(run.tried)} calls instead of {n}")
            picked[n] = inside
        return picked

    return search


def iterations(budget: int) -> tuple[int, int, int]:
    """Trials of the three iterations, 4 : 2 : 1 (64, 32 and 16 of 112)."""
    first, second = 4 * budget // 7, 2 * budget // 7
    return first, second, budget - first - second


def demix_pool(
    prior: FloatArray, caps: FloatArray, n: int, rng: np.random.Generator
) -> FloatArray:
    """Mixtures (m, K), m <= n, as ``sample.py`` of the DeMix code draws them, defects included.

    Tempered Dirichlet draws of random strength; a share above its cap is cut and the others are
    scaled up once, in order, which lifts some above theirs again; tiny shares become 0, the rest
    is rounded to a grid; equal neighbors are dropped.
    """
    alpha = prior**0.7 / (prior**0.7).sum()
    alpha = np.maximum(alpha, 1e-9)
    strengths = np.logspace(np.log10(0.5), np.log10(5.0), 15)
    shapes = alpha * rng.choice(strengths, size=n)[:, None]
    gammas = np.maximum(rng.standard_gamma(shapes), 1e-300)
    W = gammas / gammas.sum(axis=1, keepdims=True)
    for j in np.flatnonzero(caps < 1.0):
        over = W[:, j] > caps[j]
        # The code divides by what the others hold; where that is nothing it makes NaN.
        rest = np.maximum(1.0 - W[over, j], 1e-12)
        W[over] *= 1.0 + ((W[over, j] - caps[j]) / rest)[:, None]
        W[over, j] = caps[j]
    W[W < _MINIMUM] = 0.0
    W /= W.sum(axis=1, keepdims=True)
    W = np.round(W / _MINIMUM) * _MINIMUM
    W /= W.sum(axis=1, keepdims=True)
    W = W[np.lexsort(W.T)]
    fresh = np.abs(np.diff(W, axis=0)).sum(axis=1) > 1e-5
    return W[np.concatenate([[True], fresh])]


def demix(run: Run) -> Callable[[int], Recommended]:
    """The published DeMix schedule (arXiv 2602.00747 and its released code).

    LightGBM at 0.01 with 300 iterations and library defaults for each benchmark; mean percentile
    rank over benchmarks among 200,000 candidates; each iteration draws from the best 1280, and the
    mean of the best 128 is the final mixture (the paper's number; the code averages 1280). For
    its smallest budget, 56 calls, the code ranks at last by Ridge(0.5) of the second iteration.
    """
    space, rng = run.surface.space, run.rng
    pool = demix_pool(space.prior, space.max_weights(), DEMIX_DRAWN, rng)
    pool = pool[rng.permutation(len(pool))[:DEMIX_POOL]]

    def plan(budget: int) -> Recommended:
        rng = run.rng
        first, *later = iterations(budget)
        X = pool[rng.choice(len(pool), first, replace=False)]
        Y = run.measure_all(X)
        for size in later:
            best = pool[_by_rank(X, Y, pool)[:DEMIX_TOP]]
            chosen = best[rng.choice(len(best), size, replace=False)]
            X, Y = np.concatenate([X, chosen]), np.concatenate([Y, run.measure_all(chosen)])
        best = pool[_by_rank(X, Y, pool)[:DEMIX_AVERAGE]]
        picked = {"LightGBM": best.mean(axis=0)}
        if budget <= DEMIX_SMALL:
            second = slice(first, first + later[0])
            best = pool[_by_rank(X[second], Y[second], pool, fit=_ridge)[:DEMIX_AVERAGE]]
            picked["Ridge"] = best.mean(axis=0)
        return picked

    return plan


def _by_rank(
    X: FloatArray, Y: FloatArray, pool: FloatArray, *, fit: Fit | None = None
) -> FloatArray:
    """Order (m,) of the pool (m, K), best mean percentile rank first, as the DeMix code has it."""
    from scipy.stats import rankdata

    merit = np.zeros(len(pool))
    for y in Y.T:
        merit += rankdata(fit(X, y, pool) if fit else _lightgbm(X, y, pool, **_CODE_CONTROLS))
    return np.argsort(-merit, kind="stable")


def _ridge(X: FloatArray, y: FloatArray, pool: FloatArray) -> FloatArray:
    """Predictions (m,) of Ridge(0.5)."""
    from sklearn.linear_model import Ridge

    return np.asarray(Ridge(alpha=0.5).fit(X, y).predict(pool))


def _lightgbm(X: FloatArray, y: FloatArray, pool: FloatArray, **settings: Any) -> FloatArray:
    """Predictions (m,) of one LightGBM."""
    import lightgbm

    model = lightgbm.LGBMRegressor(n_jobs=1, verbosity=-1, **settings).fit(X, y)
    return np.asarray(model.predict(pool))


def regmix(run: Run, *, leaf: int = 20) -> Callable[[int], Recommended]:
    """RegMix (Liu et al. 2025): one round of Dirichlet mixtures, LightGBM, mean of the best 128.

    Its code's settings: prior to the power 0.5, strengths 0.1 to 5, draws that break a bound are
    rejected; 1000 iterations at 0.01 on one target, here the composite; 100,000 candidates from
    Dirichlet(prior). No calls are held back to stop the iterations early.

    Args:
        run: The search.
        leaf: Fewest rows of a leaf. LightGBM's default predicts a constant below 40 rows.
    """
    space, rng = run.surface.space, run.rng
    alpha = np.maximum(space.prior**0.5 / (space.prior**0.5).sum(), 1e-9)
    strengths = np.logspace(-1.0, np.log10(5.0), 15)

    def draw(n: int, rng: np.random.Generator) -> FloatArray:
        gammas = rng.standard_gamma(alpha * rng.choice(strengths, size=n)[:, None])
        gammas = np.maximum(gammas, 1e-300)
        W = gammas / gammas.sum(axis=1, keepdims=True)
        W[W < _MINIMUM] = 0.0
        return np.asarray(W / W.sum(axis=1, keepdims=True))

    pool = _accepted(rng.dirichlet(np.maximum(space.prior, 1e-9), 200_000), space, 100_000)
    settings = {
        "learning_rate": 0.01,
        "n_estimators": 1000,
        "min_child_samples": leaf,
        "random_state": 42,
    }

    def plan(budget: int) -> Recommended:
        X = _accepted(draw(100 * budget, run.rng), space, budget)
        y = run.value(run.measure_all(X))
        predicted = _lightgbm(X, y, pool, **settings)
        return {"mean of the best": pool[np.argsort(-predicted, kind="stable")[:128]].mean(axis=0)}

    return plan


def _accepted(W: FloatArray, space: Any, n: int) -> FloatArray:
    """The first n of W within the constraints; where they are too few, others are projected."""
    inside = W[space.contains(W)]
    if len(inside) < n:
        inside = np.concatenate([inside, space.project(W[: n - len(inside)])])
    return np.asarray(inside[:n])


def climb(run: Run) -> Callable[[int], Recommended]:
    """CLIMB (Diao et al. 2025): three rounds, each from the best that LightGBM predicts.

    A regularized LightGBM on the composite (depth 4, 5 rows a leaf, L1 and L2; no calls are held
    back to stop it early); new mixtures come from the top of a pool, and the best predicted one is
    final.
    """
    space, rng = run.surface.space, run.rng
    settings = {
        "learning_rate": 0.01,
        "n_estimators": 1000,
        "max_depth": 4,
        "min_child_samples": 5,
        "reg_alpha": 0.01,
        "reg_lambda": 0.01,
        "random_state": 42,
    }
    pool = space.sample(20_000, rng)

    def plan(budget: int) -> Recommended:
        rng = run.rng
        first, *later = iterations(budget)
        free = np.ones(len(pool), dtype=bool)
        chosen = rng.choice(len(pool), first, replace=False)
        X, y = pool[chosen], run.value(run.measure_all(pool[chosen]))
        for size in later:
            free[chosen] = False
            order = np.argsort(-_lightgbm(X, y, pool, **settings), kind="stable")
            top = order[free[order]][: 8 * size]
            chosen = rng.choice(top, size, replace=False)
            X = np.concatenate([X, pool[chosen]])
            y = np.concatenate([y, run.value(run.measure_all(pool[chosen]))])
        return {"best predicted": pool[int(np.argmax(_lightgbm(X, y, pool, **settings)))]}

    return plan


def olmix(run: Run) -> Callable[[int], Recommended]:
    """Olmix (arXiv 2602.12237): one round, a log-linear law for each benchmark, solved exactly.

    Loss = exp(c) + exp(t·w) by a Huber loss of 0.02; the weighted sum over benchmarks, convex in
    w, is minimized within the constraints, with and without the paper's pull to the prior.
    """

    def plan(budget: int) -> Recommended:
        X = run.surface.space.sample(budget, run.rng)
        losses = run.surface.ceiling - run.measure_all(X)
        slopes = np.stack([_log_linear(X, loss) for loss in losses.T])  # (b, K)
        solve = _convex_solver(run.surface, slopes)
        return {"exact": solve(0.0), "exact, KL 0.05": solve(0.05)}

    return plan


def _log_linear(X: FloatArray, loss: FloatArray) -> FloatArray:
    """Slopes t (K,) of loss = exp(c) + exp(t·w), from several starts of c."""
    from scipy.optimize import least_squares

    def residual(theta: FloatArray) -> FloatArray:
        return np.asarray(np.exp(theta[0]) + np.exp(X @ theta[1:]) - loss)

    def jacobian(theta: FloatArray) -> FloatArray:
        first = np.full((len(X), 1), np.exp(theta[0]))
        return np.concatenate([first, np.exp(X @ theta[1:])[:, None] * X], axis=1)

    fits = []
    lowest = max(float(loss.min()), 1e-3)
    for part in (0.1, 0.5, 0.9):  # of the lowest loss that no data removes
        above = np.log(np.maximum(loss - part * lowest, 1e-6))
        slopes = np.linalg.lstsq(
            np.concatenate([X, 0.03 * np.eye(X.shape[1])]),
            np.concatenate([above, np.full(X.shape[1], 0.03 * above.mean())]),
            rcond=None,
        )[0]
        start = np.concatenate([[np.log(part * lowest)], slopes])
        options = {"loss": "huber", "f_scale": 0.02, "max_nfev": 200}
        fits.append(least_squares(residual, start, jac=jacobian, **options))
    best = min(fits, key=lambda fit: float(fit.cost))
    return np.asarray(best.x[1:])


def _convex_solver(surface: Surface, slopes: FloatArray) -> Callable[[float], FloatArray]:
    """Minimizer (K,) of the weighted sum of exp(t·w) plus a multiple of KL(w, prior)."""
    from scipy.optimize import LinearConstraint, minimize

    space = surface.space
    prior = np.maximum(space.prior, 1e-12)
    rows, bounds = space._rows
    weights = surface.weights * surface.spread.mean()  # losses keep their own size

    def solve(pull: float) -> FloatArray:
        def objective(w: FloatArray) -> tuple[float, FloatArray]:
            growth = np.exp(slopes @ w) * weights
            ratio = np.log(np.maximum(w, 1e-12) / prior)
            value = growth.sum() + pull * float(np.maximum(w, 0.0) @ ratio)
            return float(value), np.asarray(growth @ slopes + pull * (ratio + 1.0))

        found = minimize(
            objective,
            space.center,
            jac=True,
            method="SLSQP",
            bounds=[(0.0, 1.0)] * len(space),
            constraints=[
                LinearConstraint(np.ones(len(space)), 1.0, 1.0),
                *([LinearConstraint(rows, -np.inf, bounds)] if len(rows) else []),
            ],
            options={"maxiter": 500, "ftol": 1e-10},
        )
        return np.asarray(found.x if np.isfinite(found.x).all() else space.prior)

    return solve


# Ours ----------------------------------------------------------------------------------------


def ours(
    run: Run,
    budgets: Sequence[int],
    prior_mean: Callable[[FloatArray], FloatArray] | None = None,
) -> dict[int, Recommended]:
    """``DemixSampler`` and ``recommend`` with their defaults: one objective, benchmarks told."""
    import optuna

    from optuna_demix import DemixSampler, recommend
    from optuna_demix.attributes import OBJECTIVES_ATTR, SCORE_PREFIX

    surface = run.surface
    layout = [dict(zip(surface.benchmarks, surface.weights.tolist(), strict=True))]

    def objective(trial: optuna.Trial) -> float:
        w = np.array(list(surface.space.suggest(trial).values()))
        scores = run.measure(w)
        for name, score in zip(surface.benchmarks, scores.tolist(), strict=True):
            trial.set_user_attr(SCORE_PREFIX + name, score)
        return float(run.value(scores))

    def study_of(trials: Sequence[optuna.trial.FrozenTrial]) -> optuna.Study:
        sampler = DemixSampler(surface.space, seed=run.seed, prior_mean=prior_mean)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        study.set_user_attr(OBJECTIVES_ATTR, layout)
        study.add_trials(trials)
        return study

    study = study_of([])
    study.optimize(objective, n_trials=max(budgets))
    trials = study.get_trials(deepcopy=False)
    picked = {}
    for n in budgets:
        final = recommend(study_of(trials[:n]), surface.space).merge_weights
        picked[n] = {"recommend": np.array(list(final.values()))}
    return picked


METHODS: Mapping[str, Method] = {
    "ours": ours,
    "random": optuna_sampler(random_search, of_exponentials),
    "tpe": optuna_sampler(tpe),
    "tpe_faq": optuna_sampler(tpe, of_exponentials),
    "gp": optuna_sampler(gp, posterior=True),
    "cma_es": optuna_sampler(cma_es),
    "demix_published": for_each_budget(demix),
    "regmix": for_each_budget(regmix),
    "climb": for_each_budget(climb),
    "olmix": for_each_budget(olmix),
}
"""All methods by name."""

VERSIONS: Mapping[str, str] = {name: "1" for name in METHODS}
"""Change one where a method changes: cached runs of another version are not used."""
