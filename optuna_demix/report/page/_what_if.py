"""What the page needs to predict any mixture by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from optuna_demix._typing import FloatArray
    from optuna_demix.mixture import MixtureSpace
    from optuna_demix.report.data import ReportData
    from optuna_demix.surrogate._description import Description

_ROWS = 768  # mixtures that approximations are fitted to, a third of them to measure errors
_MOST_BYTES = 1.5e6  # of the surrogate: the page is to be mailed
_SCALE = 0.1  # of the moves around the mixtures that the page starts from


def what_if_of(data: ReportData) -> dict[str, Any]:
    """The surrogate, the composite, the constraints and the mixtures to start from."""
    predictor, space = data.predictor, data.space
    described = predictor.surrogate.describe(_rows_near(data), most_bytes=_MOST_BYTES)
    composite = predictor.composite.describe()
    reference = composite["reference"]
    if reference is not None:
        reference = list(reference.T)  # ranks among scores that hardly differ need all digits
    return {
        "components": list(space.components),
        "datasets": list(space.datasets),
        "composition": space.composition.tolist(),
        "plain": is_plain(space),
        "epochs": _epochs_of_all(space),
        "constraints": [
            {"row": c.row.tolist(), "bound": c.bound, "text": c.text} for c in space.inequalities
        ],
        "minWeight": space.min_weight,
        "presets": {name: row.tolist() for name, row in predictor.rows.items()},
        "objectives": list(data.objectives),
        "signs": data.signs.tolist(),
        "mixing": predictor.mixing.tolist(),
        "composite": {"weights": composite["weights"].tolist(), "reference": reference},
        "surrogate": described.benchmarks,
        "approximation": _in_words(described, data),
    }


def is_plain(space: MixtureSpace) -> bool:
    """Whether data shares are the merge weights: each component has its own dataset alone."""
    return space.components == space.datasets and bool(
        np.allclose(space.composition, np.eye(len(space)))
    )


def _epochs_of_all(space: MixtureSpace) -> list[float | None]:
    """For each dataset, epochs of a run that takes nothing else; ``None`` where unknown."""
    if space.budget is None or space.tokens is None:
        return [None] * len(space.datasets)
    return [
        float(space.budget / tokens) if np.isfinite(tokens) and tokens > 0 else None
        for tokens in space.tokens
    ]


def _rows_near(data: ReportData) -> FloatArray:
    """Rows (N, d) as people will ask for: anywhere, around known mixtures, one weight moved."""
    space, rows = data.space, np.stack(list(data.predictor.rows.values()))
    rng = np.random.default_rng(5)
    k = len(space)
    chosen = rows[rng.integers(len(rows), size=_ROWS)]
    weights = chosen[:, :k]
    third = _ROWS // 3
    weights[:third] = space.sample(third, rng)
    weights[third : 2 * third] = space.perturb(weights[third : 2 * third], _SCALE, rng)
    moved, to = np.eye(k)[rng.integers(k, size=_ROWS - 2 * third)], rng.random((third, 1)) ** 2
    weights[2 * third :] = (1.0 - to) * weights[2 * third :] + to * moved
    return rng.permutation(chosen)


def _in_words(described: Description, data: ReportData) -> str:
    """How far the page's predictions are from those of the surrogate; empty if not at all."""
    mixing = np.abs(data.predictor.mixing)
    means = described.mean_error @ mixing
    std = float(described.std_error.max(initial=0.0))
    if not means.any() and std == 0.0:
        return ""
    parts = []
    if means.any():
        worst = ", ".join(
            f"{name} {error:.2g}" for name, error in zip(data.objectives, means, strict=True)
        )
        parts.append(f"predicted scores are off by at most {worst}")
    if std:
        parts.append(f"widths of intervals by at most {100 * std:.2g} %")
    return (
        "This page holds an approximation of a part of the surrogate that cannot be carried in a "
        f"file. On mixtures it was not fitted to, in 95 of 100 cases {' and '.join(parts)}."
    )
