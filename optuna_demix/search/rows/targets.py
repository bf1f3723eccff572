"""What is regressed, and how objectives follow from it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from optuna_demix.attributes import BLOCKS_ATTR, CHEAP_PREFIX, OBJECTIVES_ATTR, SCORE_PREFIX

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from optuna_demix._typing import FloatArray


@dataclass(frozen=True)
class Targets:
    """What is regressed, and how objectives follow from it.

    Attributes:
        benchmarks: Names of the regressed benchmarks; empty: the study's values themselves.
        mixing: Matrix (b, m): objectives (n, m) = benchmarks (n, b) @ mixing.
        signs: +1 for a maximized objective, -1 for a minimized one, (m,). Benchmarks are
            oriented already, so that signs only apply to values.
        objectives: Names of the objectives; empty: the study has given them none.
    """

    benchmarks: tuple[str, ...]
    mixing: FloatArray
    signs: FloatArray
    objectives: tuple[str, ...] = ()

    @classmethod
    def of(cls, study: Study) -> Targets:
        """Read from a study: per benchmark where the objective wrote down how they mix."""
        from optuna.study import StudyDirection

        signs = np.array([1.0 if d == StudyDirection.MAXIMIZE else -1.0 for d in study.directions])
        objectives = tuple(study.metric_names or ())
        plain = cls((), np.eye(len(signs)), signs, objectives)
        layout = study.user_attrs.get(OBJECTIVES_ATTR)
        if not isinstance(layout, list) or len(layout) != len(signs) or np.any(signs < 0):
            return plain
        try:
            names = tuple(sorted({str(name) for objective in layout for name in objective}))
            mixing = np.array(
                [[float(objective.get(name, 0.0)) for objective in layout] for name in names]
            )
        except (AttributeError, TypeError, ValueError):
            return plain  # not written by this package: learn from the values
        if not names or not np.all(np.isfinite(mixing)):
            return plain
        return cls(names, mixing, signs, objectives)

    def read(self, trial: FrozenTrial) -> FloatArray | None:
        """Regressed scores (b,) of a finished trial, higher is better; NaN where one is missing.

        ``None`` if there is nothing to learn from it.
        """
        if self.benchmarks:
            return self._numbers(trial, SCORE_PREFIX)
        if trial.values is None:
            return None
        return np.asarray(trial.values, dtype=float) * self.signs

    def read_cheap(self, trial: FrozenTrial) -> FloatArray | None:
        """Cheap scores (b,) in place of benchmarks that are screened, NaN for the others.

        ``None`` if none was.
        """
        return self._numbers(trial, CHEAP_PREFIX)

    def _numbers(self, trial: FrozenTrial, prefix: str) -> FloatArray | None:
        """What attributes of a prefix hold (b,), NaN where one is missing; ``None`` if all are."""
        found = [trial.user_attrs.get(prefix + name) for name in self.benchmarks]
        if any(isinstance(value, (int, float)) for value in found):
            return np.array([np.nan if value is None else float(value) for value in found])
        return None

    def read_blocks(self, trial: FrozenTrial) -> FloatArray | None:
        """Scores (b, l) on the first l blocks of items; ``None`` if it was not raced."""
        written = trial.user_attrs.get(BLOCKS_ATTR)
        if not self.benchmarks or not isinstance(written, dict):
            return None
        try:
            blocks = np.array([written[name] for name in self.benchmarks], dtype=float)
        except (KeyError, TypeError, ValueError):
            return None  # of other benchmarks
        return blocks if blocks.ndim == 2 and np.isfinite(blocks).all() else None

    def read_reports(self, trial: FrozenTrial) -> Mapping[int, float]:
        """Intermediate values by step, higher is better, where the value itself is regressed."""
        if self.benchmarks or len(self.signs) > 1:
            return {}
        sign = float(self.signs[0])
        found = trial.intermediate_values
        return {step: sign * value for step, value in found.items() if math.isfinite(value)}

    def values(self, trial: FrozenTrial) -> FloatArray:
        """Objective values (m,) of a finished trial, higher is better."""
        return np.asarray(trial.values, dtype=float) * self.signs


def objective_layout(
    capabilities: Mapping[str, Sequence[str]], weights: Mapping[str, float] | None
) -> list[dict[str, float]]:
    """How objectives follow from benchmarks, as it is written to :data:`OBJECTIVES_ATTR`.

    Args:
        capabilities: Benchmarks of each capability; a capability is their mean.
        weights: Weights of the capabilities in one objective, or ``None`` for one objective
            each.
    """
    layouts: list[dict[str, float]] = []
    for names in capabilities.values():
        layouts.append({})
        for name in names:  # one that is named twice counts twice
            layouts[-1][name] = layouts[-1].get(name, 0.0) + 1.0 / len(names)
    if weights is None:
        return layouts
    weighted: dict[str, float] = {}
    for capability, layout in zip(capabilities, layouts, strict=True):
        for name, share in layout.items():
            weighted[name] = weighted.get(name, 0.0) + share * weights[capability]
    return [weighted]
