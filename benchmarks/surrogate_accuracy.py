"""How well the surrogates rank mixtures they have not seen, beside their peers.

Data: the public RegMix runs of 1M-parameter models, 17 domains and 13 validation losses, 512
training and 256 held-out mixtures (``{train,test}_mixture_1m.csv``, ``…_pile_loss_1m.csv`` of the
data folder of github.com/sail-sg/regmix). A draw of n training mixtures fits every regressor; all
are asked to rank the 256 held-out mixtures by each loss, negated. Reported are means over losses
and draws of

- spearman: rank correlation with the true scores;
- spearman_top_quarter: the same among the 64 truly best mixtures of a loss;
- regret: best score minus the score of the mixture predicted best, in standard deviations.

A regressor that predicts a constant ranks nothing: its correlations count 0 and its regret is that
of a random pick. At n = 512 all draws hold the same rows in another order: the peers, to whom the
order is nothing, are fitted once.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _common import parser, print_table, provenance, write
from numpy.typing import NDArray

from optuna_demix.surrogate import Surrogate
from optuna_demix.surrogate._validation import spearman, top_quarter

FloatArray = NDArray[np.float64]
Predictor = Callable[[FloatArray, FloatArray, FloatArray], FloatArray]

SIZES = (28, 56, 112, 224, 512)
DRAWS = 10
QUICK_SIZES = (28, 56, 112)
QUICK_DRAWS = 3
DEMIX, GP = "peer: DeMix LightGBM", "peer: GP on sqrt(w)"
_COLUMNS = {
    "n": "d",
    "kind": "",
    "spearman": ".4f",
    "spearman_top_quarter": ".4f",
    "regret": ".4f",
    "draws": "d",
    "seconds": ".2f",
}


def ours(kind: str) -> Predictor:
    """A kind of ``Surrogate``."""
    return lambda X, Y, X_new: Surrogate(kind).fit(X, Y).predict(X_new)


def demix_lightgbm(X: FloatArray, Y: FloatArray, X_new: FloatArray) -> FloatArray:
    """The released code of DeMix: LightGBM, 300 iterations at 0.01, everything else default."""
    import lightgbm

    def one(y: FloatArray) -> FloatArray:
        settings = {"learning_rate": 0.01, "n_estimators": 300, "random_state": 42}
        model = lightgbm.LGBMRegressor(**settings, n_jobs=1, verbosity=-1)
        return np.asarray(model.fit(X, y).predict(X_new))

    return np.stack([one(y) for y in Y.T], axis=1)


def ridge(X: FloatArray, Y: FloatArray, X_new: FloatArray) -> FloatArray:
    """Ridge regression of strength 0.5, DeMix's regressor for its smallest budget."""
    from sklearn.linear_model import Ridge

    return np.asarray(Ridge(alpha=0.5).fit(X, Y).predict(X_new))


def log_linear_law(X: FloatArray, Y: FloatArray, X_new: FloatArray) -> FloatArray:
    """The data mixing law, loss = c + exp(b + t·w), by robust least squares from two starts."""
    from scipy.optimize import least_squares

    def one(loss: FloatArray) -> FloatArray:
        design = np.c_[np.ones(len(X)), X]  # (n, K + 1)

        def residual(theta: FloatArray) -> FloatArray:
            return np.asarray(theta[0] + np.exp(design @ theta[1:]) - loss)

        def jacobian(theta: FloatArray) -> FloatArray:
            growth = np.exp(design @ theta[1:])
            return np.c_[np.ones(len(X)), growth[:, None] * design]

        fits = []
        for below in (0.5, 2.0):  # start of c, in standard deviations below the best loss
            floor = loss.min() - below * loss.std()
            penalty = 0.1 * np.eye(design.shape[1])
            target = np.r_[np.log(loss - floor), np.zeros(len(penalty))]
            start = np.linalg.lstsq(np.r_[design, penalty], target, rcond=None)[0]
            theta = np.r_[floor, start]
            options = {"loss": "huber", "f_scale": 0.02, "max_nfev": 200}
            fits.append(least_squares(residual, theta, jac=jacobian, **options))
        theta = min(fits, key=lambda fit: float(fit.cost)).x
        return np.asarray(-theta[0] - np.exp(np.c_[np.ones(len(X_new)), X_new] @ theta[1:]))

    return np.stack([one(-y) for y in Y.T], axis=1)


def gaussian_process(X: FloatArray, Y: FloatArray, X_new: FloatArray) -> FloatArray:
    """scikit-learn's GP on √w: Matérn-5/2, a length scale per domain, white noise."""
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    lengths = np.ones(X.shape[1])
    kernel = ConstantKernel() * Matern(lengths, length_scale_bounds=(0.01, 100.0), nu=2.5)
    kernel = kernel + WhiteKernel(0.01, (1e-6, 10.0))

    def one(y: FloatArray) -> FloatArray:
        model = GaussianProcessRegressor(kernel, normalize_y=True, random_state=0)
        return np.asarray(model.fit(np.sqrt(X), y).predict(np.sqrt(X_new)))

    return np.stack([one(y) for y in Y.T], axis=1)


PREDICTORS: dict[str, Predictor] = {
    "auto": ours("auto"),
    "gp": ours("gp"),
    "lightgbm-linear": ours("lightgbm-linear"),
    DEMIX: demix_lightgbm,
    "peer: Ridge(0.5)": ridge,
    "peer: log-linear law": log_linear_law,
    GP: gaussian_process,
}
_PEERS = [kind for kind in PREDICTORS if kind.startswith("peer")]


def load(folder: Path) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Training mixtures (512, 17) and scores (512, 13), then the held-out ones."""

    def table(name: str) -> FloatArray:
        return np.genfromtxt(folder / name, delimiter=",", skip_header=1)[:, 1:]

    X, X_new = table("train_mixture_1m.csv"), table("test_mixture_1m.csv")
    return X, -table("train_pile_loss_1m.csv"), X_new, -table("test_pile_loss_1m.csv")


def judge(prediction: FloatArray, truth: FloatArray) -> FloatArray:
    """Spearman, Spearman in the best quarter and regret (3,), means over the losses."""
    figures = []
    for p, y in zip(prediction.T, truth.T, strict=True):
        top = top_quarter(y)
        picked = float(y[p == p.max()].mean())
        ranks = np.nan_to_num([spearman(p, y), spearman(p[top], y[top])])  # NaN: a constant
        figures.append([*ranks, (y.max() - picked) / y.std()])
    return np.mean(figures, axis=0)


def run(
    data: tuple[FloatArray, FloatArray, FloatArray, FloatArray],
    sizes: tuple[int, ...],
    seeds: list[int],
) -> list[dict[str, Any]]:
    """One row for each size and regressor."""
    X, Y, X_new, truth = data
    rows = []
    for n in sizes:
        draws = [np.random.default_rng([seed, n]).permutation(len(X))[:n] for seed in seeds]
        for kind, predict in PREDICTORS.items():
            used = draws[:1] if n == len(X) and kind in _PEERS else draws
            start = time.perf_counter()
            figures = np.array([judge(predict(X[draw], Y[draw], X_new), truth) for draw in used])
            seconds = (time.perf_counter() - start) / len(used)
            means = figures.mean(axis=0)
            row = dict(zip(("spearman", "spearman_top_quarter", "regret"), means, strict=True))
            row = {key: round(float(value), 5) for key, value in row.items()}
            if len(used) > 1:
                error = figures.std(axis=0, ddof=1) / np.sqrt(len(used))
                row["spearman_se"] = round(float(error[0]), 5)
                row["spearman_top_quarter_se"] = round(float(error[1]), 5)
            rows.append(
                {"n": n, "kind": kind, **row, "draws": len(used), "seconds": round(seconds, 3)}
            )
    return rows


def check(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was aimed at, with the figure reached and the one required."""
    of = {(row["n"], row["kind"]): row for row in rows}
    targets = []

    def add(text: str, n: int, value: float, bound: float) -> None:
        met = bool(value >= bound)
        targets.append(
            {"target": text, "n": n, "value": value, "bound": round(bound, 5), "met": met}
        )

    for n in dict.fromkeys(row["n"] for row in rows):
        best = max(of[n, kind]["spearman"] for kind in _PEERS)
        add("Spearman within 0.005 of the best peer", n, of[n, "auto"]["spearman"], best - 0.005)
    for n in dict.fromkeys(row["n"] for row in rows):
        top = of[n, "auto"]["spearman_top_quarter"]
        bound = of[n, GP]["spearman_top_quarter"] - 0.02
        add("best quarter at least the GP's - 0.02", n, top, bound)
    if (112, "auto") in of:
        bound = of[112, DEMIX]["spearman_top_quarter"] + 0.45
        top = of[112, "auto"]["spearman_top_quarter"]
        add("best quarter at least DeMix's + 0.45", 112, top, bound)
    return targets


def main() -> None:
    """Run the benchmark from the command line."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="folder of the RegMix CSV files"
    )
    options = arguments.parse_args()
    try:
        data = load(options.data)
    except OSError as error:
        arguments.error(f"--data {options.data}: {error}")
    from threadpoolctl import threadpool_limits

    warnings.filterwarnings("ignore", category=RuntimeWarning)
    warnings.filterwarnings("ignore", message="X does not have valid feature names")
    from sklearn.exceptions import ConvergenceWarning

    warnings.filterwarnings("ignore", category=ConvergenceWarning)
    sizes, draws = (QUICK_SIZES, QUICK_DRAWS) if options.quick else (SIZES, DRAWS)
    seeds = list(range(options.seed, options.seed + draws))
    with threadpool_limits(limits=1):
        rows = run(data, sizes, seeds)
    targets = check(rows)
    print_table(rows, _COLUMNS)
    print("seconds: fit of 13 losses and prediction of 256 rows, one thread\n")
    for target in targets:
        verdict = "met   " if target["met"] else "MISSED"
        figures = f"{target['value']:.4f}, required {target['bound']:.4f}"
        unreachable = " (no correlation can reach it)" if target["bound"] > 1.0 else ""
        print(f"{verdict} n = {target['n']:3d}: {target['target']}: {figures}{unreachable}")
    result = {**provenance(), "quick": options.quick, "seeds": seeds}
    write(options.out, {**result, "rows": rows, "targets": targets})


if __name__ == "__main__":
    main()
