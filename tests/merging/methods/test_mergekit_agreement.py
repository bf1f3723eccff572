"""Our proxies are mergekit's. Runs where mergekit is installed: pip install '.[mergekit]'."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("mergekit")

from merge_agreement import CASES, DTYPES, agreement, make_models  # noqa: E402

from optuna_demix.merging import METHODS, find_method  # noqa: E402

MIXTURE = np.array([[0.41, 0.29, 0.17, 0.13]])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {}
    for label, dtype in DTYPES.items():
        made[label] = tmp_path_factory.mktemp(label)
        make_models(made[label], hidden=16, layers=1, dtype=dtype)
    return made


def test_every_method_is_compared() -> None:
    assert {method for method, _ in CASES} == set(METHODS)


@pytest.mark.parametrize("label", DTYPES)
@pytest.mark.parametrize(
    ("method", "given"), CASES, ids=[f"{method} {given}" for method, given in CASES]
)
def test_a_proxy_is_what_mergekit_makes(
    folders: dict[str, Path], label: str, method: str, given: dict[str, Any]
) -> None:
    figures = agreement(folders[label], find_method(method, given), MIXTURE)
    assert figures.get("chances", 0.0) <= 1e-6
    # Where signs are voted for, rounding may decide a vote: more rarely than one in a thousand.
    votes = method in ("ties", "dare_ties", "della")
    assert figures["flips"] <= (1e-3 if votes else 0.0)
    if DTYPES[label] == torch.bfloat16:
        assert figures["equal"] >= 0.999
