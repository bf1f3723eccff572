from __future__ import annotations

import copy
import hashlib
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from optuna_demix.errors import ConfigError, DemixError
from optuna_demix.surrogate import KINDS, Surrogate, check_kind
from optuna_demix.surrogate._validation import spearman
from tests.surrogate.surfaces import SURFACES, mixtures, quadratic, scores

SMOOTH_KINDS = ("auto", "gp")


@pytest.mark.parametrize("kind", SMOOTH_KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_28_rows_rank_a_quadratic(kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    w, new = mixtures(28, 4, rng), mixtures(300, 4, rng)
    surrogate = Surrogate(kind, seed=seed).fit(w, quadratic(w))
    assert spearman(surrogate.predict(new), quadratic(new)) > 0.9


@pytest.mark.parametrize("n", [28, 60, 120])
def test_auto_ranks_at_least_as_well_as_the_paper_setting(n: int) -> None:
    rng = np.random.default_rng(n)
    w, new = mixtures(n, 4, rng), mixtures(300, 4, rng)
    Y = scores(w) + 0.05 * scores(w).std(axis=0) * rng.standard_normal((n, 3))
    auto, paper = (Surrogate(kind).fit(w, Y).predict(new) for kind in ("auto", "lightgbm"))
    for j, surface in enumerate(SURFACES):
        assert spearman(auto[:, j], surface(new)) > np.nan_to_num(
            spearman(paper[:, j], surface(new))
        )


@pytest.mark.parametrize("kind", KINDS)
def test_other_parameters_are_learned_beside_the_mixture(kind: str) -> None:
    rng = np.random.default_rng(0)
    X = np.hstack([mixtures(420, 3, rng), rng.random((420, 2))])
    y = X[:, 0] - 2.0 * (X[:, 3] - 0.3) ** 2
    surrogate = Surrogate(kind, n_mixture=3).fit(X[:120], y[:120])
    assert spearman(surrogate.predict(X[120:]), y[120:]) > 0.9


def test_without_mixture_columns_all_are_parameters() -> None:
    rng = np.random.default_rng(1)
    X = rng.random((240, 3))
    surrogate = Surrogate(n_mixture=0).fit(X[:40], X[:40, 1])
    assert spearman(surrogate.predict(X[40:]), X[40:, 1]) > 0.95


@pytest.mark.parametrize("kind", KINDS)
def test_missing_score_takes_its_row_from_that_benchmark_alone(kind: str) -> None:
    rng = np.random.default_rng(2)
    w, new = mixtures(60, 4, rng), mixtures(20, 4, rng)
    whole = scores(w)
    gaps = whole.copy()
    missing = rng.permutation(60)[:15]
    gaps[missing, 1] = np.nan
    known = np.setdiff1d(np.arange(60), missing)
    prediction = Surrogate(kind).fit(w, gaps).predict(new)
    complete = Surrogate(kind).fit(w, whole).predict(new)
    without = Surrogate(kind).fit(w[known], whole[known]).predict(new)
    np.testing.assert_array_equal(prediction[:, [0, 2]], complete[:, [0, 2]])
    np.testing.assert_array_equal(prediction[:, 1], without[:, 1])


@pytest.mark.parametrize("kind", KINDS)
def test_units_of_a_score_do_not_matter(kind: str) -> None:
    rng = np.random.default_rng(3)
    w, new = mixtures(50, 4, rng), mixtures(20, 4, rng)
    mean, std = Surrogate(kind).fit(w, quadratic(w)).predict(new, return_std=True)
    other = Surrogate(kind).fit(w, 1024.0 * quadratic(w) + 4096.0)
    np.testing.assert_allclose(other.predict(new), 1024.0 * mean + 4096.0, rtol=1e-4)
    np.testing.assert_allclose(other.predict(new, return_std=True)[1], 1024.0 * std, rtol=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_infinite_loss_ranks_last_and_harms_no_other_row(kind: str) -> None:
    rng = np.random.default_rng(4)
    w = mixtures(80, 4, rng)
    y = quadratic(w)
    broken = w[:, 3] > 0.5
    y[broken] = -np.inf
    prediction = Surrogate(kind).fit(w, y).predict(w)
    assert np.isfinite(prediction).all()
    assert prediction[broken].mean() < prediction[~broken].mean()
    assert spearman(prediction[~broken], y[~broken]) > 0.8


@pytest.mark.parametrize("kind", SMOOTH_KINDS)
def test_uncertainty_grows_away_from_the_rows(kind: str) -> None:
    rng = np.random.default_rng(5)
    w = mixtures(600, 4, rng)
    near = w[w[:, 0] < 0.4]
    far = w[w[:, 0] > 0.8]
    surrogate = Surrogate(kind).fit(near[:60], scores(near[:60]))
    inside, outside = (surrogate.predict(X, return_std=True)[1] for X in (near[60:], far))
    assert (np.median(outside, axis=0) > 1.5 * np.median(inside, axis=0)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_90_percent_intervals_cover_new_scores(kind: str) -> None:
    hits = []
    for seed, n in [(0, 40), (1, 40), (2, 100), (3, 100)]:
        rng = np.random.default_rng(seed)
        w, new = mixtures(n, 4, rng), mixtures(300, 4, rng)
        noise = 0.15 * scores(w).std(axis=0)
        Y = scores(w) + noise * rng.standard_normal((n, 3))
        Y_new = scores(new) + noise * rng.standard_normal((300, 3))
        surrogate = Surrogate(kind, seed=seed).fit(w, Y)
        mean, std = surrogate.predict(new, return_std=True)
        hits.append(np.abs(Y_new - mean) <= 1.645 * np.sqrt(std**2 + surrogate.noise_**2))
    assert 0.80 <= np.mean(hits) <= 0.97


@pytest.mark.parametrize("kind", ["gp", "auto"])
def test_scores_with_stated_errors_count_less(kind: str) -> None:
    rng = np.random.default_rng(11)
    X, new = mixtures(60, 4, rng), mixtures(200, 4, rng)
    errors = np.where(np.arange(60) < 30, 0.0, 0.5)
    Y = quadratic(X) + errors * rng.standard_normal(60)
    naive, told = (Surrogate(kind, seed=0).fit(X, Y, errors=e) for e in (None, errors))
    wrong = [np.sqrt(np.mean((s.predict(new) - quadratic(new)) ** 2)) for s in (naive, told)]
    assert wrong[1] < 0.8 * wrong[0]
    assert told.noise_[0] < 0.5 * naive.noise_[0]  # what is known to be error is not noise


def test_errors_of_zero_change_nothing() -> None:
    rng = np.random.default_rng(12)
    X = mixtures(40, 4, rng)
    with_errors = Surrogate(seed=0).fit(X, quadratic(X), errors=np.zeros(40))
    np.testing.assert_array_equal(
        with_errors.predict(X), Surrogate(seed=0).fit(X, quadratic(X)).predict(X)
    )


@pytest.mark.parametrize(
    ("errors", "said"),
    [
        ([0.1, 0.1], r"errors must be shaped like Y, \(4, 1\), got .* \(2, 1\)"),
        ([0.1, 0.1, -0.1, 0.1], "errors must be finite and not negative"),
        ([0.1, 0.1, np.nan, 0.1], "errors must be finite and not negative"),
    ],
)
def test_unusable_errors_are_refused(errors: list[float], said: str) -> None:
    with pytest.raises(DemixError, match=said):
        Surrogate().fit(np.eye(4), np.arange(4.0), errors=errors)


def test_noise_is_that_of_the_scores() -> None:
    rng = np.random.default_rng(6)
    w = mixtures(200, 4, rng)
    noise = 0.3 * quadratic(w).std()
    surrogate = Surrogate().fit(w, quadratic(w) + noise * rng.standard_normal(200))
    assert 0.7 * noise < surrogate.noise_[0] < 1.4 * noise


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_predictions(kind: str) -> None:
    rng = np.random.default_rng(7)
    w, new = mixtures(40, 4, rng), mixtures(30, 4, rng)
    first = Surrogate(kind, seed=1).fit(w, scores(w))
    np.random.seed(99)  # a stranger to the surrogate
    state = np.random.get_state()[1].copy()
    again = Surrogate(kind, seed=1).fit(w, scores(w))
    for a, b in zip(
        first.predict(new, return_std=True), again.predict(new, return_std=True), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(np.random.get_state()[1], state)


def test_seed_matters() -> None:
    rng = np.random.default_rng(7)
    w = mixtures(40, 4, rng)
    one, two = (Surrogate(seed=seed).fit(w, scores(w)).predict(w) for seed in (1, 2))
    assert np.abs(one - two).max() > 0.0


def digest_of(kind: str) -> str:
    w = mixtures(50, 4, np.random.default_rng(8))
    surrogate = Surrogate(kind, seed=3).fit(w, scores(w))
    return hashlib.sha256(np.stack(surrogate.predict(w, return_std=True)).tobytes()).hexdigest()


_SCRIPT = """
import sys
from tests.surrogate.test_surrogate import digest_of
print(*map(digest_of, sys.argv[1:]), hash("nondeterministic hash"))
"""


def test_processes_agree_whatever_their_hash_seed_and_threads() -> None:
    threads = "2" if os.environ.get("OMP_NUM_THREADS") == "1" else "1"
    environment = {**os.environ, "PYTHONHASHSEED": "random", "OMP_NUM_THREADS": threads}
    command = [sys.executable, "-c", _SCRIPT, *KINDS]
    paths = [str(Path(__file__).parents[2]), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    *digests, its_hash = done.stdout.split()
    assert int(its_hash) != hash("nondeterministic hash")
    assert digests == [digest_of(kind) for kind in KINDS]


@pytest.mark.parametrize("kind", KINDS)
def test_copies_predict_the_same(kind: str) -> None:
    rng = np.random.default_rng(9)
    w = mixtures(30, 4, rng)
    surrogate = Surrogate(kind).fit(w, scores(w))
    for twin in (pickle.loads(pickle.dumps(surrogate)), copy.deepcopy(surrogate)):
        np.testing.assert_array_equal(twin.predict(w), surrogate.predict(w))


def _same_rows(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    w = np.repeat(mixtures(3, 3, rng), 10, axis=0)
    return w, np.c_[w[:, 0] + 0.01 * rng.random(30), rng.random(30)]


def _one_point(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return np.repeat(mixtures(1, 3, rng), 20, axis=0), rng.random((20, 2))


def _constant(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return mixtures(30, 3, rng), np.c_[np.full(30, 0.25), np.zeros(30)]


def _nothing_known(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    w = mixtures(30, 3, rng)
    return w, np.c_[np.full(30, np.nan), w[:, 0]]


def _all_infinite(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return mixtures(30, 3, rng), np.full((30, 2), -np.inf)


def _huge(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return mixtures(30, 3, rng), np.c_[rng.random(30) * 1e200, 1e6 + 1e-9 * rng.random(30)]


def _idle_component(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    w = np.c_[mixtures(30, 2, rng), np.zeros(30)]
    return w, w[:, :2]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "case",
    [_same_rows, _one_point, _constant, _nothing_known, _all_infinite, _huge, _idle_component],
)
@pytest.mark.filterwarnings("error")
def test_odd_rows_give_finite_predictions_in_silence(
    kind: str, case: object, capfd: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(10)
    assert callable(case)
    X, Y = case(rng)
    _assert_sane(Surrogate(kind).fit(X, Y), mixtures(50, 3, rng), capfd)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [0, 1, 3, 4, 5, 11])
@pytest.mark.filterwarnings("error")
def test_few_rows_give_finite_predictions_in_silence(
    kind: str, n: int, capfd: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(11)
    w = rng.dirichlet(np.ones(3), size=n)
    surrogate = Surrogate(kind).fit(w, rng.random((n, 2)))
    _assert_sane(surrogate, mixtures(50, 3, rng), capfd)
    surrogate.validate()
    assert capfd.readouterr() == ("", "")


def _assert_sane(surrogate: Surrogate, new: np.ndarray, capfd: pytest.CaptureFixture[str]) -> None:
    mean, std = surrogate.predict(new, return_std=True)
    assert mean.shape == std.shape == (len(new), 2)
    assert np.isfinite(mean).all()
    assert np.isfinite(std).all()
    assert (std > 0.0).all()
    assert np.isfinite(surrogate.noise_).all()
    assert (surrogate.noise_ > 0.0).all()
    assert capfd.readouterr() == ("", "")


def test_scores_that_say_nothing_are_predicted_by_their_mean() -> None:
    w = mixtures(30, 3, np.random.default_rng(12))
    Y = np.c_[np.full(30, 0.25), np.full(30, np.nan), w[:, 0]]
    surrogate = Surrogate().fit(w, Y)
    np.testing.assert_allclose(surrogate.predict(w)[:, 0], 0.25)
    assert surrogate.kinds_[:2] == ("constant", "constant")
    assert surrogate.kinds_[2] != "constant"
    assert surrogate.shares_[0] == {"constant": 1.0}


def test_shapes_follow_the_scores() -> None:
    w = mixtures(20, 3, np.random.default_rng(13))
    for Y, shape in [(w[:, 0], ()), (w[:, :1], (1,)), (w[:, :2], (2,))]:
        surrogate = Surrogate().fit(w, Y)
        for n in (0, 5):
            mean, std = surrogate.predict(w[:n], return_std=True)
            assert mean.shape == std.shape == surrogate.predict(w[:n]).shape == (n, *shape)
            np.testing.assert_allclose(mean, surrogate.predict(w[:n]))
        assert surrogate.noise_.shape == (shape or (1,))
        assert surrogate.validate().mean.shape == (20, *(shape or (1,)))
    assert Surrogate().fit(w, np.empty((20, 0))).predict(w).shape == (20, 0)


def test_fitting_again_forgets() -> None:
    rng = np.random.default_rng(14)
    w, new = mixtures(30, 3, rng), mixtures(40, 3, rng)
    surrogate = Surrogate().fit(new, new[:, 1]).fit(w, w[:, 0])
    np.testing.assert_array_equal(surrogate.predict(new), Surrogate().fit(w, w[:, 0]).predict(new))


def test_the_callers_arrays_are_left_alone() -> None:
    w = mixtures(30, 3, np.random.default_rng(15))
    y = w[:, 0].copy()
    y[3] = -np.inf
    kept_w, kept_y = w.copy(), y.copy()
    Surrogate().fit(w, y).predict(w)
    np.testing.assert_array_equal(w, kept_w)
    np.testing.assert_array_equal(y, kept_y)


def test_parameters_are_kept_as_they_are_given() -> None:
    given = {"kind": "gp", "seed": 3, "n_mixture": 2, "n_threads": 1, "n_members": 4}
    given["prior_mean"] = scores
    given["unit"] = [0.5, 0.5]
    surrogate = Surrogate(**given)  # type: ignore[arg-type]
    assert surrogate.get_params() == given
    assert surrogate.set_params(seed=5, kind="auto") is surrogate
    assert surrogate.get_params() == {**given, "seed": 5, "kind": "auto"}
    with pytest.raises(ConfigError, match="no parameter of Surrogate 'sed'; did you mean 'seed'"):
        surrogate.set_params(seed=6, sed=7)
    assert surrogate.seed == 5


def test_scikit_learn_clones_it_without_what_it_learned() -> None:
    base = pytest.importorskip("sklearn.base", reason="scikit-learn is not installed")
    surrogate = Surrogate("lightgbm", seed=3).fit(W, W[:, 0])
    twin = base.clone(surrogate)
    assert twin.get_params() == surrogate.get_params()
    assert not [name for name in vars(twin) if name.endswith("_")]
    np.testing.assert_array_equal(twin.fit(W, W[:, 0]).predict(W), surrogate.predict(W))


def test_unknown_kind_is_answered_with_the_known_ones() -> None:
    for refuse in (check_kind, lambda kind: Surrogate(kind).fit(W, W[:, 0])):
        with pytest.raises(ConfigError, match="'forest'.*auto, gp, lightgbm-linear, lightgbm"):
            refuse("forest")


@pytest.mark.parametrize(
    ("option", "value"),
    [("n_members", 1), ("n_members", 2.5), ("n_mixture", -1), ("n_threads", 0), ("seed", None)],
)
def test_options_out_of_range_are_refused_by_fit(option: str, value: object) -> None:
    surrogate = Surrogate(**{option: value})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=f"{option} of a surrogate .* got {value}; correct it"):
        surrogate.fit(W, W[:, 0])


W = mixtures(20, 3, np.random.default_rng(16))
GAP = W.copy()
GAP[7, 2] = np.nan


@pytest.mark.parametrize(
    ("X", "Y", "message"),
    [
        pytest.param(GAP, W[:, 0], "nan in row 7, column 2", id="a weight is missing"),
        pytest.param(
            W[:, 0],
            W[:, 0],
            r"X must be an array \(rows, columns\), got .*\(20,\)",
            id="X is a vector",
        ),
        pytest.param(W, W[:5, 0], "Y must hold 20 rows", id="Y is shorter"),
        pytest.param(W, W[None], "Y must hold 20 rows", id="Y has three axes"),
        pytest.param(W[:, :1], W[:, 0], "fewer than n_mixture = 2", id="a component is missing"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(X: np.ndarray, Y: np.ndarray, message: str) -> None:
    with pytest.raises(DemixError, match=message):
        Surrogate(n_mixture=2).fit(X, Y)


def test_predictions_need_a_fit_and_its_columns() -> None:
    with pytest.raises(DemixError, match="call fit"):
        Surrogate().predict(W)
    with pytest.raises(DemixError, match="call fit"):
        Surrogate().validate()
    surrogate = Surrogate().fit(W, W[:, 0])
    with pytest.raises(DemixError, match="2 columns but the surrogate was fitted to 3"):
        surrogate.predict(W[:, :2])


def test_import_is_light() -> None:
    code = "import sys, optuna_demix.surrogate; print('lightgbm' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
