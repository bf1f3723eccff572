"""Scores on a CUDA device beside those on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from optuna_demix.config import load_study_config, space_of
from optuna_demix.study import build_objective
from tests.tiny_study import make_study

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
