"""How a model was trained, as kept beside its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from optuna_demix.config import StudyConfig
from optuna_demix.errors import ConfigError
from optuna_demix.training._files import file_digest, read_json
from optuna_demix.training._job import Job, Run
from optuna_demix.training._pilot import Pilot
from optuna_demix.training._recipe import digest_of
from optuna_demix.training._results import TrainedModel

if TYPE_CHECKING:
    from transformers import Trainer

RECORD_FILE = "training.json"
"""File beside the weights that says how they were trained."""

RECORD_FORMAT = 1


def read_record(path: Path) -> dict[str, Any] | None:
    """How the model in a directory was trained; None if it was not made by this module."""
    record = read_json(path / RECORD_FILE)
    return record if record is not None and record.get("format") == RECORD_FORMAT else None


def trained_model(run: Run, record: Mapping[str, Any], *, skipped: bool) -> TrainedModel:
    """Read a model's record as what the user is given."""
    return TrainedModel(
        name=run.name,
        path=run.path,
        data_shares={name: float(facts["share"]) for name, facts in record["data"].items()},
        merge_weights=record["merge_weights"],
        tokens=int(record["tokens"]),
        steps=int(record["steps"]),
        final_loss=float(record["final_loss"]),
        seconds=float(record["seconds"]),
        skipped=skipped,
    )


def base_digest(config: StudyConfig) -> str | None:
    """Digest of the base's weights; None while there is no base.

    Raises:
        ConfigError: If the base's directory holds no safetensors weights.
    """
    path = config.base_path
    record = read_record(path)
    if record is not None:
        return _weights_digest(record["weights"])
    if not (path / "config.json").is_file():
        return None
    weights = weights_of(path)
    if not weights:
        raise ConfigError(f"{path}: holds no .safetensors weights; convert the base first")
    return _weights_digest(weights)


def weights_of(path: Path) -> dict[str, dict[str, Any]]:
    """Sizes and digests of the safetensors files in a directory."""
    return {
        file.name: {"bytes": file.stat().st_size, "sha256": file_digest(file)}
        for file in sorted(path.glob("*.safetensors"))
    }


def _weights_digest(weights: Mapping[str, Mapping[str, Any]]) -> str:
    return digest_of({name: facts["sha256"] for name, facts in weights.items()})


def make_record(
    job: Job,
    run: Run,
    recipe: dict[str, Any],
    data: dict[str, dict[str, float]],
    trainer: Trainer,
    pilot: Pilot,
) -> dict[str, Any]:
    """Put together the record of a model that has just been trained."""
    import torch
    import transformers

    tokens = run.steps * job.block_tokens * job.training.batch_size
    seconds = pilot.seconds
    return {
        "format": RECORD_FORMAT,
        "name": run.name,
        "recipe": recipe,
        "digest": digest_of(recipe),
        "data": data,
        "merge_weights": run.merge_weights,
        "steps": run.steps,
        "tokens": tokens,
        "seed": job.training.seed,
        "final_loss": _final_loss(trainer.state.log_history, run.steps),
        "seconds": seconds,
        "tokens_per_second": tokens / max(seconds, 1e-9),
        "device": str(trainer.args.device),
        "processes": trainer.args.world_size,
        "sharding": job.training.sharding,
        "averaged_steps": pilot.snapshots,
        "versions": {
            "numpy": np.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }


def _final_loss(history: Sequence[Mapping[str, Any]], steps: int) -> float:
    """Mean loss over the last tenth of the steps, from means over the steps between two logs."""
    last, total, weight = 0, 0.0, 0
    for entry in history:
        if "loss" not in entry:
            continue
        span = entry["step"] - last
        last = entry["step"]
        if last > 0.9 * steps:
            total += span * entry["loss"]
            weight += span
    return total / weight
