"""Hydra's Optuna sweeper with our sampler; ``pip install 'hydra-optuna-sweeper>=1.4.0rc3'``.

python hydra_sweep.py --multirun
"""

from __future__ import annotations

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

COMPONENTS = ["web", "code", "math"]

store = ConfigStore.instance()
# As a file: hydra/sweeper/sampler/demix.yaml in your folder of configurations.
store.store(
    group="hydra/sweeper/sampler",
    name="demix",
    node={
        "_target_": "optuna_demix.DemixSampler",
        "_convert_": "all",
        "space": {"_target_": "optuna_demix.MixtureSpace", "components": COMPONENTS},
        "seed": 0,
    },
)
store.store(
    name="config",
    node={
        "defaults": [
            "_self_",
            {"override hydra/sweeper": "optuna"},
            {"override hydra/sweeper/sampler": "demix"},
        ],
        **dict.fromkeys(COMPONENTS, 0.0),
        "hydra": {
            "sweeper": {
                "direction": "maximize",
                "n_trials": 16,
                "n_jobs": 2,
                # One parameter from 0 to 1 for each component; the sampler makes them sum to 1.
                "params": dict.fromkeys(COMPONENTS, "interval(0.0, 1.0)"),
            }
        },
    },
)


# Hydra builds from configurations only what the program allows.
@hydra.main(version_base=None, config_name="config", execution_whitelist="optuna_demix.*")
def train(config: DictConfig) -> float:
    """One trial: ``config`` holds the weights, which sum to 1."""
    total = sum(config[name] for name in COMPONENTS)
    assert abs(total - 1) < 1e-12, total
    return -((config.web - 0.5) ** 2) - (config.code - 0.3) ** 2


if __name__ == "__main__":
    train()
