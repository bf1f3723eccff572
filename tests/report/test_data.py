from __future__ import annotations

import numpy as np
import optuna

from optuna_demix import MixtureSpace
from optuna_demix.attributes import OBJECTIVES_ATTR, SCORE_PREFIX
from optuna_demix.report import gather
from optuna_demix.report.data import effects_of


def _study(space: MixtureSpace, benchmarks: list[str]) -> optuna.Study:
    """A study of the mean of benchmarks that all have the same score."""
    study = optuna.create_study(direction="maximize")
    weight = 1.0 / len(benchmarks)
    study.set_user_attr(OBJECTIVES_ATTR, [dict.fromkeys(benchmarks, weight)])
    for weights in space.sample(40, np.random.default_rng(0)):
        value = float(np.sqrt(weights) @ [0.5, 0.2, 0.1] - weights[0] ** 2)
        study.add_trial(
            optuna.trial.create_trial(
                params=dict(zip(space.param_names, weights.tolist(), strict=True)),
                distributions=space.distributions(),
                value=value,
                user_attrs={SCORE_PREFIX + name: value for name in benchmarks},
            )
        )
    return study


def test_held_out_errors_of_one_objective_do_not_cancel_over_its_benchmarks() -> None:
    """What is not known of a mixture is not known in any of the benchmarks."""
    space = MixtureSpace(["web", "code", "math"])
    one, four = (gather(_study(space, list(names)), space) for names in ("a", "abcd"))
    np.testing.assert_allclose(four.held_out, one.held_out)
    ratio = four.held_out_std / one.held_out_std
    assert np.median(ratio) > 0.9  # independent errors would give 0.5
    assert (ratio <= 1.0 + 1e-9).all()


def test_effects_are_those_of_the_surface() -> None:
    space = MixtureSpace(["a", "b", "c"])

    def predict(X: np.ndarray) -> np.ndarray:
        return np.column_stack([3 * X[:, 0] - X[:, 1], np.zeros(len(X))])

    effects = effects_of(predict, space, ["linear", "flat"])
    base = space.sample(256, np.random.default_rng([0, 3]))
    slope = np.array([3.0, -1.0, 0.0])
    expected = 0.1 * (slope - (base @ slope).mean())
    np.testing.assert_allclose(effects.change, [expected, np.zeros(3)], atol=1e-12)
    np.testing.assert_allclose(effects.spread, [(base @ slope).std(), 0.0])
