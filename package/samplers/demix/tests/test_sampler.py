from __future__ import annotations

import optuna
import optunahub


module = optunahub.load_local_module(package="samplers/demix", registry_root="package/")


def test_mixtures_sum_to_one_and_meet_their_caps() -> None:
    space = module.MixtureSpace(
        ["web", "code", "math"],
        tokens={"web": 8e9, "code": 2e9, "math": 5e8},
        budget=1e10,
        max_epochs=4,
    )
    study = optuna.create_study(
        direction="maximize", sampler=module.DemixSampler(space, seed=0, n_startup_trials=4)
    )
    seen: list[dict[str, float]] = []

    def objective(trial: optuna.Trial) -> float:
        seen.append(space.suggest(trial))
        return seen[-1]["math"]

    study.optimize(objective, n_trials=8)
    assert all(abs(sum(weights.values()) - 1) < 1e-9 for weights in seen)
    assert all(weights["math"] <= 0.2 + 1e-9 for weights in seen)


def test_several_objectives() -> None:
    space = module.MixtureSpace(["web", "code"])
    study = optuna.create_study(
        directions=["maximize", "maximize"],
        sampler=module.DemixSampler(space, seed=0, n_startup_trials=4),
    )
    study.optimize(lambda trial: tuple(space.suggest(trial).values()), n_trials=8)
    assert len({trial.params["web"] for trial in study.trials}) == 8
