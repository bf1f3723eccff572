from __future__ import annotations

import optuna
import optunahub


module = optunahub.load_module(package="samplers/demix")

# Tokens of each corpus; a run of 1e10 tokens repeats none more than four times.
space = module.MixtureSpace(
    ["web", "code", "math"],
    tokens={"web": 8e9, "code": 2e9, "math": 5e8},
    budget=1e10,
    max_epochs=4,
)


def objective(trial: optuna.Trial) -> float:
    weights = space.suggest(trial)  # They sum to 1 and meet all constraints.
    # Stands for a training run on the mixture, or for a proxy of one.
    return -((weights["web"] - 0.5) ** 2) - (weights["code"] - 0.35) ** 2


if __name__ == "__main__":
    sampler = module.DemixSampler(space, seed=0)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(objective, n_trials=20)
    print(module.recommend(study))
