"""``ask`` and ``tell``: you choose where and when to evaluate, here four mixtures at a time."""

from __future__ import annotations

import optuna

from optuna_demix import DemixSampler, MixtureSpace

SPACE = MixtureSpace(["web", "code", "math"], prior={"web": 8, "code": 1, "math": 1})


def evaluate(batch: list[dict[str, float]]) -> list[float]:
    """Replace this by a batch on your cluster; higher is better."""
    return [-((w["web"] - 0.5) ** 2) - (w["code"] - 0.3) ** 2 for w in batch]


def main() -> None:
    """Search in batches."""
    study = optuna.create_study(direction="maximize", sampler=DemixSampler(SPACE, seed=0))
    for _ in range(8):
        trials = [study.ask() for _ in range(4)]
        # The sampler sees which mixtures are being evaluated and keeps away from them.
        batch = [SPACE.suggest(trial) for trial in trials]
        for trial, score in zip(trials, evaluate(batch), strict=True):
            study.tell(trial, score)
    print(f"best of {len(study.trials)}: {study.best_value:.5f}")
    for name, weight in study.best_params.items():
        print(f"  {name} {weight:.3f}")


if __name__ == "__main__":
    main()
