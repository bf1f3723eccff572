from __future__ import annotations

import numpy as np
import optuna
import pytest

from optuna_demix import DemixSampler, MixtureSpace, Surrogate, recommend
from tests.search.learning_rates import with_learning_rate

SPACE = MixtureSpace(["general", "code", "math"])
TARGET = np.array([0.5, 0.3, 0.2])


@pytest.mark.parametrize("noise", [0.02, 0.05])
@pytest.mark.parametrize("seed", range(3))
def test_it_is_that_of_the_scores(noise: float, seed: int) -> None:
    study = optuna.create_study(direction="maximize")
    rng = np.random.default_rng(seed)
    near = SPACE.perturb(np.tile(TARGET, (20, 1)), 0.1, rng)
    for w in np.concatenate([SPACE.sample(20, rng), near]):
        score = -np.sum((w - TARGET) ** 2) + noise * rng.standard_normal()
        study.add_trial(SPACE.create_trial(w, float(score)))
    found = recommend(study, SPACE, options=DemixSampler(SPACE, composite="mean").options)
    assert 0.5 * noise < found.noise["value"] < 2.0 * noise


def test_steep_slopes_elsewhere_are_no_noise() -> None:
    study = with_learning_rate(0, n_trials=28)
    found = recommend(study, options=DemixSampler(SPACE, composite="mean").options)
    assert found.noise["value"] < 0.01  # of scores down to -4, which have no noise


def test_some_rows_may_be_noisier_than_others() -> None:
    rng = np.random.default_rng(0)
    W = SPACE.sample(200, rng)
    calm = W[:, 0] > 1 / 3
    noise = np.where(calm, 0.01, 0.1)
    scores = W[:, 0] + noise * rng.standard_normal(len(W))
    surrogate = Surrogate("gp").fit(W, scores)
    assert surrogate.noise_among(calm)[0] < 0.02
    assert surrogate.noise_among(~calm)[0] == pytest.approx(0.1, rel=0.3)
    np.testing.assert_allclose(surrogate.noise_among(calm | ~calm), surrogate.noise_)
    np.testing.assert_array_equal(surrogate.noise_among(calm & ~calm), surrogate.noise_)


def test_a_missing_score_has_no_held_out_prediction() -> None:
    W = SPACE.sample(30, np.random.default_rng(0))
    Y = np.stack([W[:, 0], W[:, 1]], axis=1)
    Y[3, 1] = np.nan
    held_out = Surrogate().fit(W, Y).held_out_
    assert np.isnan(held_out).sum() == 1 and np.isnan(held_out[3, 1])
    assert np.corrcoef(held_out[:, 0], Y[:, 0])[0, 1] > 0.99
