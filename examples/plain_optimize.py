"""``study.optimize`` with an objective of your own: a mixture and a learning rate together."""

from __future__ import annotations

import optuna

from optuna_demix import DemixSampler, MixtureSpace, recommend

# Tokens of each corpus; a run of 1e10 tokens repeats none more than four times.
SPACE = MixtureSpace(
    ["web", "code", "math"],
    tokens={"web": 8e9, "code": 2e9, "math": 5e8},
    budget=1e10,
    max_epochs=4,
)


def train_and_score(weights: dict[str, float], learning_rate: float) -> float:
    """Replace this by your own training run; higher is better."""
    distance = (weights["web"] - 0.5) ** 2 + (weights["code"] - 0.35) ** 2
    return -distance - 0.05 * (learning_rate * 1e3 - 1) ** 2


def objective(trial: optuna.Trial) -> float:
    """One trial."""
    weights = SPACE.suggest(trial)  # sums to 1, within all limits
    learning_rate = trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True)
    return train_and_score(weights, learning_rate)


def main() -> None:
    """Search, and print the recommended mixture and learning rate."""
    study = optuna.create_study(direction="maximize", sampler=DemixSampler(SPACE, seed=0))
    study.optimize(objective, n_trials=40)
    print(recommend(study))


if __name__ == "__main__":
    main()
