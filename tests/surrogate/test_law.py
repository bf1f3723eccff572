from __future__ import annotations

import numpy as np
import pytest

from optuna_demix.errors import ConfigError
from optuna_demix.surrogate import Surrogate, _law
from optuna_demix.surrogate._kinds import LawAlone, Process, Task, _likely_weight
from optuna_demix.surrogate._law import Law
from optuna_demix.surrogate._regressor import make_folds
from optuna_demix.surrogate._validation import spearman

K = 30
EPOCHS = np.random.default_rng(9).dirichlet(np.full(K, 3.0))
WORTH = np.linspace(0.3, 1.0, K)


def _standard(y: np.ndarray) -> np.ndarray:
    return np.asarray((y - y.mean()) / y.std())


def _mixtures(n: int, rng: np.random.Generator) -> np.ndarray:
    return rng.dirichlet(K * EPOCHS, n)


def _taught(X: np.ndarray) -> np.ndarray:
    """Sources that wear out, each worth something of its own; no form that the law has."""
    return np.asarray(-np.exp(-3.0 * np.sqrt(X * EPOCHS) @ WORTH) - 0.5 * X[:, 0] ** 2)


def _law_of(X: np.ndarray, z: np.ndarray, **options: object) -> Law:
    given: dict[str, object] = {"n_mixture": X.shape[1], "seed": 0, **options}
    return Law(X, z, make_folds(len(z), 5, 0), **given)  # type: ignore[arg-type]


def test_fewer_rows_than_sources_tell_which_mixtures_are_good() -> None:
    rng = np.random.default_rng(0)
    X, new = _mixtures(24, rng), _mixtures(400, rng)
    law = _law_of(X, _standard(_taught(X)), unit=EPOCHS)
    assert spearman(law.mean(new), _taught(new)) > 0.75
    process = Surrogate("gp", n_mixture=K).fit(X, _taught(X))
    assert spearman(process.predict(new), _taught(new)) < spearman(law.mean(new), _taught(new))


def test_without_evidence_of_sources_the_best_mixture_is_that_of_the_units() -> None:
    rng = np.random.default_rng(1)
    X = _mixtures(12, rng)
    z = _standard(-np.abs(X - EPOCHS).sum(axis=1))  # the farther from them, the worse
    far = np.eye(K)
    law = _law_of(X, z, unit=EPOCHS)
    assert law.mean(EPOCHS[None])[0] > law.mean(far).max()


@pytest.mark.parametrize("others", [0, 2])
def test_gradients_are_those_of_the_likelihood(others: int) -> None:
    rng = np.random.default_rng(2)
    X = np.column_stack([rng.dirichlet(np.ones(5), 20), rng.random((20, others))])
    z = _standard(np.sqrt(X[:, 0]) + X[:, -1])
    form = _law._Form.of(X, 5, None)
    theta = np.array([-0.3, 0.2, -1.0, -2.0, 0.4, 0.1, 0.3])
    variance = np.full(20, 0.01)

    def value(shift: np.ndarray) -> float:
        return _law._negative_log_likelihood(theta + shift, form, X, z, variance)[0]

    _, gradient = _law._negative_log_likelihood(theta, form, X, z, variance)
    steps = 1e-5 * np.eye(len(theta))
    numeric = [(value(step) - value(-step)) / 2e-5 for step in steps]
    np.testing.assert_allclose(gradient, numeric, atol=1e-5)


def test_held_out_predictions_are_those_of_a_fit_without_the_fold() -> None:
    rng = np.random.default_rng(3)
    X = _mixtures(40, rng)
    z = _standard(_taught(X) + 0.1 * _taught(X).std() * rng.standard_normal(40))
    fold = make_folds(40, 5, 0)[0]
    law = _law_of(X, z)
    kept = np.setdiff1d(np.arange(40), fold)
    kernel = law._kernel(law._known)
    noisy = kernel[np.ix_(kept, kept)] + law.hyperparameters.noise * np.eye(len(kept))
    expected = kernel[np.ix_(fold, kept)] @ np.linalg.solve(noisy, z[kept])
    np.testing.assert_allclose(law.held_out.mean[fold], expected, atol=1e-4)


def test_held_out_predictions_have_not_seen_their_scores() -> None:
    rng = np.random.default_rng(4)
    z = _standard(rng.standard_normal(80))
    assert abs(spearman(_law_of(_mixtures(80, rng), z).held_out.mean, z)) < 0.35


def test_no_prediction_lies_farther_beyond_the_scores_than_they_lie_apart() -> None:
    rng = np.random.default_rng(5)
    X = EPOCHS * np.exp(0.01 * rng.standard_normal((20, K)))  # all alike, and unlike what follows
    X /= X.sum(axis=1, keepdims=True)
    z = _standard((X / EPOCHS) @ rng.standard_normal(K))
    law = _law_of(X, z, unit=EPOCHS)
    far = law.predict(np.eye(K))
    assert np.abs(far.mean).max() <= np.abs(z).max() + np.ptp(z)
    assert np.isfinite(far.variance).all()
    assert far.variance.mean() > 10.0 * law.predict(X).variance.mean()


def test_known_errors_make_a_score_count_less() -> None:
    rng = np.random.default_rng(6)
    X = _mixtures(30, rng)
    z = _standard(_taught(X))
    wrong = z.copy()
    wrong[0] += 5.0
    trusted = _law_of(X, wrong)
    doubted = _law_of(X, wrong, variance=np.where(np.arange(30) == 0, 25.0, 0.0))
    off = [abs(law.mean(X[:1])[0] - z[0]) for law in (trusted, doubted)]
    assert off[1] < 0.5 * off[0]


def test_other_parameters_are_learned_beside_the_mixture() -> None:
    rng = np.random.default_rng(7)
    X = np.column_stack([_mixtures(60, rng), rng.random(60)])
    new = np.column_stack([_mixtures(200, rng), rng.random(200)])
    y = _standard(X[:, -1] ** 2) + 0.3 * _standard(_taught(X[:, :K]))
    law = _law_of(X, _standard(y), n_mixture=K)
    assert spearman(law.mean(new), new[:, -1]) > 0.8


@pytest.mark.parametrize(
    ("k", "n", "kinds"),
    [
        (23, 30, {"gp", "lightgbm-linear"}),
        (24, 23, {"law"}),
        (24, 48, {"gp", "law"}),
        (24, 96, {"gp", "law", "lightgbm-linear"}),
        (24, 513, {"gp", "lightgbm-linear"}),
    ],
    ids=["few sources", "fewer rows", "as many rows", "many rows", "too many rows"],
)
def test_auto_takes_a_law_where_there_are_many_sources(k: int, n: int, kinds: set[str]) -> None:
    rng = np.random.default_rng(8)
    X = rng.dirichlet(np.ones(k), n)
    noise = rng.standard_normal(n)  # nobody can tell which is best: nearly even weights
    assert set(Surrogate().fit(X, noise).shares_[0]) == kinds


def test_what_a_prior_mean_leaves_is_learned_by_the_law() -> None:
    rng = np.random.default_rng(10)
    X, new = _mixtures(24, rng), _mixtures(200, rng)

    def near(rows: np.ndarray) -> np.ndarray:
        return _taught(rows) + 0.1 * rows[:, 1]

    surrogate = Surrogate(n_mixture=K, unit=EPOCHS, prior_mean=near).fit(X, _taught(X))
    assert set(surrogate.shares_[0]) <= {"prior", "law"} and "prior" in surrogate.shares_[0]
    assert spearman(surrogate.predict(new), _taught(new)) > 0.9


def test_law_and_process_are_weighed_by_their_errors_on_new_rows() -> None:
    rng = np.random.default_rng(11)
    X = _mixtures(K, rng)
    y = X @ rng.standard_normal(K)
    task = Task(X, _standard(y), make_folds(K, 5, 0), K, 0, 1, np.zeros(K))
    law, process = LawAlone(task), Process(task)
    weight = _likely_weight(task.z, law, process)
    assert _likely_weight(task.z, process, law) == pytest.approx(1.0 - weight)
    assert _likely_weight(task.z, law, law) == 0.5
    process.optimism *= 4.0  # errors twice as large
    assert _likely_weight(task.z, law, process) > weight or weight == 1.0


@pytest.mark.parametrize("wrong", [[0.5, 0.5], [np.nan] + [0.1] * (K - 1), [-0.1] * K])
def test_units_that_are_no_shares_are_refused(wrong: list[float]) -> None:
    X = _mixtures(8, np.random.default_rng(0))
    with pytest.raises(ConfigError, match=f"unit must hold {K} shares"):
        Surrogate(unit=wrong).fit(X, X[:, 0])
