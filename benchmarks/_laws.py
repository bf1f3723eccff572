"""Laws of how scores follow from a mixture: fitted to real runs, or drawn at random.

Both are sums of what the data-mixing literature has found, power laws in a share that transfer
makes effective and exponential mixing laws; no surrogate of this package or of a peer has either
form.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

PILE_DOMAINS = {  # share of the tokens of the Pile (RegMix, table 1)
    "arxiv": 0.1133,
    "freelaw": 0.0796,
    "nih_exporter": 0.0039,
    "pubmed_central": 0.1854,
    "wikipedia_en": 0.0511,
    "dm_mathematics": 0.0160,
    "github": 0.1018,
    "philpapers": 0.0037,
    "stackexchange": 0.0665,
    "enron_emails": 0.0018,
    "gutenberg_pg_19": 0.0271,
    "pile_cc": 0.2369,
    "ubuntu_irc": 0.0118,
    "europarl": 0.0079,
    "hackernews": 0.0080,
    "pubmed_abstracts": 0.0388,
    "uspto_backgrounds": 0.0464,
}

_RIDGE = 0.01  # pull of a fitted parameter to its start, in units of the loss
_STARTS = 2


@dataclass(frozen=True)
class FittedLaw:
    """Loss = c + a (1 + s·w)^-g + exp(b + t·w) with s >= 0, for each of several losses.

    The first term is a power law in the share that transfer makes effective (as in AutoScale and
    BiMix), the second the exponential mixing law (Data Mixing Laws).

    Attributes:
        theta: Parameters (b, 2 K + 4) of b losses: c, log s (K), log a, log g, b, t (K).
    """

    theta: FloatArray

    @classmethod
    def fit(cls, X: FloatArray, losses: FloatArray) -> FittedLaw:
        """Least squares from two starts on mixtures (n, K) and losses (n, b)."""
        return cls(np.stack([_fit_one(X, loss) for loss in losses.T]))

    def __call__(self, X: FloatArray) -> FloatArray:
        """Losses (n, b) of mixtures (n, K)."""
        return np.stack([_fitted(theta, X) for theta in self.theta], axis=1)


def read_pile_runs(folder: Path, losses: tuple[str, ...]) -> tuple[FloatArray, FloatArray]:
    """Mixtures (768, 17) and some losses (768, b) of all public RegMix runs of 1M parameters."""
    X, Y = [], []
    for part in ("train", "test"):
        path = folder / f"{part}_pile_loss_1m.csv"
        with path.open(encoding="utf-8") as file:
            header = file.readline().strip().split(",")
        columns = [header.index(f"metric/the_pile_{name}_val_loss") for name in losses]
        mixtures = folder / f"{part}_mixture_1m.csv"
        X.append(np.genfromtxt(mixtures, delimiter=",", skip_header=1)[:, 1:])
        Y.append(np.genfromtxt(path, delimiter=",", skip_header=1)[:, columns])
    shares = np.concatenate(X)
    return shares / shares.sum(axis=1, keepdims=True), np.concatenate(Y)


def _fit_one(X: FloatArray, loss: FloatArray) -> FloatArray:
    from scipy.optimize import least_squares

    k = X.shape[1]
    center = np.concatenate([[loss.min() - 1.0], np.ones(k), [0.5, -0.7, -1.0], np.zeros(k)])
    anchor = _RIDGE * np.eye(len(center))
    anchor[0, 0] = 0.0

    def residual(theta: FloatArray) -> FloatArray:
        return np.concatenate([_fitted(theta, X) - loss, anchor @ (theta - center)])

    def jacobian(theta: FloatArray) -> FloatArray:
        return np.concatenate([_slopes(theta, X), anchor])

    rng = np.random.default_rng(0)
    fits = []
    for _ in range(_STARTS):
        start = center.copy()
        start[1 : k + 1] += rng.normal(0.0, 1.5, k)
        fits.append(least_squares(residual, start, jac=jacobian, max_nfev=400))
    theta: FloatArray = min(fits, key=lambda fit: float(fit.cost)).x
    return theta


def _terms(theta: FloatArray, X: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Effective share (n,), power-law term (n,) and exponential term (n,)."""
    k = X.shape[1]
    share = 1.0 + X @ np.exp(theta[1 : k + 1])
    power = np.exp(theta[k + 1]) * share ** -np.exp(theta[k + 2])
    return share, power, np.exp(theta[k + 3] + X @ theta[k + 4 :])


def _fitted(theta: FloatArray, X: FloatArray) -> FloatArray:
    _, power, growth = _terms(theta, X)
    return np.asarray(theta[0] + power + growth)


def _slopes(theta: FloatArray, X: FloatArray) -> FloatArray:
    """Derivatives (n, 2 K + 4) of the loss in its parameters."""
    k = X.shape[1]
    share, power, growth = _terms(theta, X)
    g = np.exp(theta[k + 2])
    return np.concatenate(
        [
            np.ones((len(X), 1)),
            (-g * power / share)[:, None] * X * np.exp(theta[1 : k + 1]),
            power[:, None],
            (-g * power * np.log(share))[:, None],
            growth[:, None],
            growth[:, None] * X,
        ],
        axis=1,
    )


@dataclass(frozen=True)
class SkillLaw:
    """Losses of skills that datasets teach, and benchmarks that need several skills.

    Skill loss = floor + gain (offset + x)^-exponent exp(harm·w), where the effective share
    x = w·transfer + Σ_ij w_i w_j synergy_ij has diminishing returns, datasets that go together
    help each other, and unrelated ones harm.

    Attributes:
        transfer: What a share of each dataset counts for each skill (K, S).
        synergy: Bonus of pairs of datasets for each skill (S, K, K).
        harm: Growth of each skill's loss with the share of each dataset (K, S).
        gain: Size of the power law (S,).
        offset: Effective share of the base model (S,).
        exponent: Exponent of the power law (S,).
        floor: Loss that no data removes (S,).
        needs: What each skill counts for each benchmark (S, b); columns sum to 1.
    """

    transfer: FloatArray
    synergy: FloatArray
    harm: FloatArray
    gain: FloatArray
    offset: FloatArray
    exponent: FloatArray
    floor: FloatArray
    needs: FloatArray

    def __call__(self, X: FloatArray) -> FloatArray:
        """Losses (n, b) of mixtures (n, K)."""
        pairs = np.einsum("ni,sij,nj->ns", X, self.synergy, X, optimize=True)
        share = self.offset + X @ self.transfer + pairs
        skills = self.floor + self.gain * share**-self.exponent * np.exp(X @ self.harm)
        return np.asarray(skills @ self.needs)


@dataclass(frozen=True)
class RepeatedLaw:
    """Losses of a run in which data are repeated: repeats teach ever less, and wear at last.

    Tokens beyond the first epoch count as in "Scaling Data-Constrained Language Models"
    (arXiv 2305.16264): R further epochs are worth R* (1 - exp(-R / R*)) of the first one. Their
    wear grows with the square of R.

    Attributes:
        law: Losses (n, b) of shares that are never repeated.
        epochs: Epochs of each dataset in a run that takes nothing else (K,).
        worth: R*, all that further epochs can be worth (K,).
        wear: Loss of each benchmark for a squared further epoch (K, b).
    """

    law: SkillLaw
    epochs: FloatArray
    worth: FloatArray
    wear: FloatArray

    def __call__(self, X: FloatArray) -> FloatArray:
        """Losses (n, b) of mixtures (n, K)."""
        further = np.maximum(X * self.epochs - 1.0, 0.0)
        gained = self.worth * -np.expm1(-further / self.worth)
        fresh = np.minimum(X, 1.0 / self.epochs) + gained / self.epochs
        return np.asarray(self.law(fresh) + further**2 @ self.wear)


@dataclass(frozen=True)
class Accuracy:
    """Accuracies that rise from chance as losses fall: chance + (top - chance) sigmoid.

    Attributes:
        law: Losses (n, b).
        middle: Loss at which half of the way is gone (b,).
        slope: Steepness per unit of loss (b,).
        chance: Accuracy of guessing (b,).
        top: Best accuracy (b,).
    """

    law: SkillLaw
    middle: FloatArray
    slope: FloatArray
    chance: FloatArray
    top: FloatArray

    def __call__(self, X: FloatArray) -> FloatArray:
        """Accuracies (n, b) of mixtures (n, K)."""
        rise = 1.0 / (1.0 + np.exp(-self.slope * (self.middle - self.law(X))))
        return np.asarray(self.chance + (self.top - self.chance) * rise)
