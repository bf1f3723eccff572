"""Studies as a search leaves them, without a search: known surfaces, known noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import optuna

from optuna_demix import MixtureSpace
from optuna_demix.attributes import (
    MERGED_PREFIX,
    OBJECTIVES_ATTR,
    PREDICTED_PREFIX,
    PREDICTED_STD_PREFIX,
    PROBABILITY_PREFIX,
    SCORE_PREFIX,
    VIOLATION_ATTR,
)
from optuna_demix.search.rows.targets import objective_layout

COMPONENTS = (
    "general", "math_high", "math_medium", "math_low", "code_high", "code_medium", "code_low",
)  # fmt: skip
CAPABILITIES = {
    "general": ["hellaswag/acc_norm", "piqa/acc"],
    "code": ["humaneval/pass@1", "mbpp/pass@1"],
    "math": ["gsm8k/exact_match", "minerva_math/exact_match"],
}
NOISE = 0.004


def mixture_space(n_components: int = 7) -> MixtureSpace:
    """Components with half general data, as in the paper."""
    names = COMPONENTS[:n_components]
    composition = {name: {name: 0.5, "general": 0.5} for name in names}
    composition["general"] = {"general": 1.0}
    prior = {name: 0.5 if name == "general" else 0.5 / (len(names) - 1) for name in names}
    return MixtureSpace(names, composition=composition, prior=prior)


def true_scores(shares: np.ndarray) -> np.ndarray:
    """Benchmark scores (n, 6) of data shares (n, 7): concave, each with its own optimum."""
    shares = shares / shares.sum(axis=1, keepdims=True)
    rng = np.random.default_rng(1)
    gain = rng.uniform(0.0, 0.15, (7, 6))
    gain[0, :2] += 0.7
    gain[4:, 2:4] += np.array([[0.8], [0.5], [0.3]])
    gain[1:4, 4:] += np.array([[1.0], [0.6], [0.2]])
    return 0.1 + 0.6 * np.sqrt(shares + 0.01) @ gain[: shares.shape[1]]


def make_study(
    n_trials: int,
    *,
    storage: optuna.storages.BaseStorage | str | None = None,
    name: str = "demix",
    n_failed: int = 0,
    space: MixtureSpace | None = None,
    seed: int = 0,
) -> optuna.Study:
    """A study whose mixtures move towards its optimum, with predictions from trial 16 on."""
    space = space or mixture_space()
    rng = np.random.default_rng(seed)
    study = optuna.create_study(
        storage=storage, study_name=name, directions=["maximize"] * len(CAPABILITIES)
    )
    study.set_metric_names(list(CAPABILITIES))
    study.set_user_attr(OBJECTIVES_ATTR, objective_layout(CAPABILITIES, None))
    study.add_trials(_trials(space, n_trials, n_failed, rng))
    return study


def _trials(
    space: MixtureSpace, n: int, n_failed: int, rng: np.random.Generator
) -> list[optuna.trial.FrozenTrial]:
    weights = space.sample(n, rng)
    pool = space.sample(2000, rng)
    good = pool[np.argmax(true_scores(space.data_shares(pool)).sum(axis=1))]
    pull = np.linspace(0.0, 0.9, n)[:, None] * (rng.random((n, 1)) < 0.7)
    weights = space.perturb((1 - pull) * weights + pull * good, 0.02, rng)
    clean = true_scores(space.data_shares(weights))
    scores = clean + NOISE * rng.standard_normal(clean.shape)
    expected = clean.reshape(n, 3, 2).mean(axis=2)
    expected += 2 * NOISE * rng.standard_normal(expected.shape)
    values = scores.reshape(n, 3, 2).mean(axis=2)
    made = []
    for i in range(n):
        attrs = dict(zip(_score_names(), scores[i].tolist(), strict=True))
        attrs[VIOLATION_ATTR] = 0.0
        if i >= 16:
            for j, name in enumerate(CAPABILITIES):
                attrs[PREDICTED_PREFIX + name] = float(expected[i, j])
                attrs[PREDICTED_STD_PREFIX + name] = 2 * NOISE
        made.append(_trial(space, weights[i], values[i].tolist(), attrs))
    for _ in range(n_failed):
        made.append(
            optuna.trial.create_trial(
                state=optuna.trial.TrialState.FAIL, user_attrs={"fail_reason": "out of memory"}
            )
        )
    return made


def _trial(
    space: MixtureSpace, weights: np.ndarray, values: Sequence[float], attrs: dict[str, float]
) -> optuna.trial.FrozenTrial:
    return optuna.trial.create_trial(
        params=dict(zip(space.param_names, weights.tolist(), strict=True)),
        distributions=space.distributions(),
        values=values,
        user_attrs=attrs,
    )


def _score_names() -> list[str]:
    return [SCORE_PREFIX + name for names in CAPABILITIES.values() for name in names]


def wide_space(n_components: int) -> MixtureSpace:
    """Components of half general data with sizes, caps, a group and long names."""
    kinds = ("web", "code", "math", "books", "science", "dialogue", "legal", "multilingual_news")
    names = ["general"]
    names += [f"{kinds[i % 8]}_{i // 8:02d}_high_quality" for i in range(n_components - 1)]
    return MixtureSpace(
        names,
        composition={
            name: {name: 0.5, "general": 0.5} if name != "general" else {name: 1.0}
            for name in names
        },
        prior={name: 10.0 if name == "general" else 1.0 + i % 5 for i, name in enumerate(names)},
        tokens={name: 4e9 + 1e9 * (i % 7) for i, name in enumerate(names)},
        budget=2e10,
        max_epochs=3,
        groups=[{"name": "text", "members": names[1:4], "upper": 0.7}],
    )


def wide_study(space: MixtureSpace, n_trials: int, *, seed: int = 0) -> optuna.Study:
    """A study of any number of components, of which some help; both proxies have scored it."""
    rng = np.random.default_rng(seed)
    k = len(space)
    gain = np.zeros((k, 6))
    for j in range(6):
        gain[rng.choice(k, min(k, 4), replace=False), j] = rng.uniform(0.1, 0.6, min(k, 4))
    weights = space.sample(n_trials, rng)
    pool = space.sample(500, rng)
    good = pool[np.argmax((np.sqrt(space.data_shares(pool)) @ gain).sum(axis=1))]
    pull = np.linspace(0.0, 0.9, n_trials)[:, None] * (rng.random((n_trials, 1)) < 0.7)
    weights = space.perturb((1 - pull) * weights + pull * good, 0.02, rng)
    clean = 0.2 + 0.6 * np.sqrt(space.data_shares(weights)) @ gain
    scores = clean + NOISE * rng.standard_normal(clean.shape)
    other = clean + 2 * NOISE * rng.standard_normal(clean.shape)
    study = optuna.create_study(study_name=f"wide {k}", directions=["maximize"] * 3)
    study.set_metric_names(list(CAPABILITIES))
    study.set_user_attr(OBJECTIVES_ATTR, objective_layout(CAPABILITIES, None))
    names = [name for group in CAPABILITIES.values() for name in group]
    for w, score, probability in zip(weights, scores, other, strict=True):
        attrs = {}
        for name, merged, mixed in zip(names, score.tolist(), probability.tolist(), strict=True):
            attrs |= {SCORE_PREFIX + name: merged, MERGED_PREFIX + name: merged}
            attrs[PROBABILITY_PREFIX + name] = mixed
        values = score.reshape(3, 2).mean(axis=1).tolist()
        study.add_trial(_trial(space, w, values, attrs))
    return study
