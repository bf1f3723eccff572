"""Ray Tune with our sampler in its ``OptunaSearch``; ``pip install 'ray[tune]'``."""

from __future__ import annotations

from typing import Any

from ray import tune
from ray.tune.search.optuna import OptunaSearch

from optuna_demix import DemixSampler, MixtureSpace

SPACE = MixtureSpace(["web", "code", "math"])


def train(config: dict[str, Any]) -> None:
    """One trial: ``config`` holds the weights, which sum to 1."""
    score = -((config["web"] - 0.5) ** 2) - (config["code"] - 0.3) ** 2
    tune.report({"score": score, "total": sum(config[name] for name in SPACE.components)})


def main() -> None:
    """Search with two trials at a time."""
    search = OptunaSearch(
        space=SPACE.distributions(),
        metric="score",
        mode="max",
        sampler=DemixSampler(SPACE, seed=0),
    )
    tuner = tune.Tuner(
        tune.with_resources(train, {"cpu": 1}),
        tune_config=tune.TuneConfig(search_alg=search, num_samples=16, max_concurrent_trials=2),
    )
    results = tuner.fit()
    totals = [result.metrics["total"] for result in results]
    assert all(abs(total - 1) < 1e-12 for total in totals), totals
    best = results.get_best_result("score", "max")
    print(f"best of {len(results)}: {best.metrics['score']:.5f} {best.config}")


if __name__ == "__main__":
    main()
