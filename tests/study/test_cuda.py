"""Scores on a CUDA device beside those on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from optuna_demix.config import load_study_config, space_of
from optuna_demix.study import build_objective
from tests.tiny_study import make_study, write_study

torch = pytest.importorskip("torch")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_mixture_scores_on_cuda_as_on_the_cpu(tmp_path: Path) -> None:
    make_study(tmp_path)
    config = load_study_config(tmp_path / "study.yaml")
    space = space_of(config)
    mixtures = space.sample(3, np.random.default_rng(0))
    scores = []
    for device in ("cpu", "cuda"):
        objective, fingerprint = build_objective(config, space, device=device)
        assert fingerprint["scoring"]["device"] == device
        scores.append([list(objective.score(w).benchmarks.values()) for w in mixtures])
    # float32 sums in another order.
    np.testing.assert_allclose(scores[1], scores[0], rtol=1e-4)
    assert np.ptp(scores[0], axis=0).min() > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(
    ("device_map", "kinds"),
    [
        ({"": 0, "model.layers.0.mlp": "cpu"}, "cpu+cuda"),
        pytest.param(
            {"": 0, "model.layers.0.mlp": 1},
            "cuda",
            marks=pytest.mark.skipif(
                torch.cuda.device_count() < 2, reason="needs two CUDA devices"
            ),
        ),
    ],
)
def test_a_mixture_scores_over_devices_as_on_the_cpu(
    tmp_path: Path, device_map: dict[str, Any], kinds: str
) -> None:
    scoring = {"include_path": "tasks", "batch_size": 4, "max_length": 32}
    file = make_study(tmp_path, scoring=scoring)
    scores = []
    for changes in ({"device_map": "cpu"}, {"device_map": device_map, "shared_prefixes": True}):
        write_study(tmp_path, scoring={**scoring, **changes})
        config = load_study_config(file)
        objective, fingerprint = build_objective(config, space_of(config))
        scores.append([*objective.score([0.2, 0.3, 0.5]).benchmarks.values()])
    assert fingerprint["scoring"]["device"] == kinds
    np.testing.assert_allclose(scores[1], scores[0], rtol=1e-4)
