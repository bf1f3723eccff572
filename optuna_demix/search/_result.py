"""A recommendation, as object, table and JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from optuna_demix._text_table import text_table
from optuna_demix.search.proposals.convergence import least_trials

if TYPE_CHECKING:
    from optuna_demix._typing import FloatArray


@dataclass(frozen=True)
class Mixture:
    """One mixture and its scores.

    Attributes:
        merge_weights: By component; they sum to 1.
        data_shares: By dataset: what a training run would use; they sum to 1.
        capabilities: Score by objective, in the study's own orientation.
        std: Standard deviation of a predicted score by objective; empty for measured ones.
        composite: Merit, higher is better: for ``"rank"`` the mean over objectives of the share
            of random mixtures that it beats (1: all of them, in everything).
        measured: Whether the scores were measured by a merge, and not predicted.
    """

    merge_weights: dict[str, float]
    data_shares: dict[str, float]
    capabilities: dict[str, float]
    std: dict[str, float]
    composite: float
    measured: bool


@dataclass(frozen=True)
class Recommendation:
    """The recommended mixture of a study beside those it has to beat.

    Attributes:
        study_name: The study.
        mixtures: ``prior``, ``uniform``, ``best_trial`` and ``recommended``.
        best_trial: Number of the trial with the best composite.
        n_trials: Number of trials it was learned from.
        accuracy: Out-of-fold rank correlation of the surrogate by benchmark; NaN where there are
            too few trials.
        composite: How objectives make one merit.
        expected_gain: Composite that the most promising candidate is expected to add to the
            recommended mixture.
        noise: Standard deviation of one trial's composite about its prediction.
        merit: Merit (n,) of oriented objective scores (n, m), as it ranked the candidates.
    """

    study_name: str
    mixtures: dict[str, Mixture]
    best_trial: int
    n_trials: int
    accuracy: dict[str, float]
    composite: str
    expected_gain: float
    noise: float
    merit: Callable[[FloatArray], FloatArray] = field(repr=False, compare=False)

    @property
    def merge_weights(self) -> dict[str, float]:
        """Merge weights of the recommended mixture, by component."""
        return self.mixtures["recommended"].merge_weights

    @property
    def data_shares(self) -> dict[str, float]:
        """Data shares of the recommended mixture, by dataset: what to train on."""
        return self.mixtures["recommended"].data_shares

    @property
    def converged(self) -> bool:
        """Whether the expected gain is below the noise, with 4 K + 8 trials of K components."""
        enough = self.n_trials >= least_trials(len(self.merge_weights))
        return enough and self.expected_gain <= self.noise

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON can hold it (NaN becomes ``None``)."""
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "merit"}
        plain["converged"] = self.converged
        plain["mixtures"] = {name: asdict(mixture) for name, mixture in self.mixtures.items()}
        result: dict[str, Any] = _without_nan(plain)
        return result

    def to_json(self) -> str:
        """Everything, as JSON."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def __str__(self) -> str:
        """Two tables: what the recommended mixture is, and how it compares."""
        return f"{self._shares_table()}\n\n{self._scores_table()}"

    def _shares_table(self) -> str:
        mixture = self.mixtures["recommended"]
        names = [*mixture.merge_weights]
        names += [name for name in mixture.data_shares if name not in mixture.merge_weights]
        rows = [
            [name, _share(mixture.merge_weights.get(name)), _share(mixture.data_shares.get(name))]
            for name in names
        ]
        title = f"Recommended mixture of {self.study_name!r}, from {self.n_trials} trials"
        return f"{title}\n{_ruled(['', 'merge weight', 'data share'], rows)}"

    def _scores_table(self) -> str:
        objectives = list(self.mixtures["recommended"].capabilities)
        rows = []
        for name, mixture in self.mixtures.items():
            label = f"best trial ({self.best_trial})" if name == "best_trial" else name
            scores = [
                f"{mixture.capabilities[o]:.4f}"
                + (f" ±{mixture.std[o]:.4f}" if o in mixture.std else "")
                for o in objectives
            ]
            kind = "measured" if mixture.measured else "predicted"
            rows.append([label, *scores, f"{mixture.composite:.3f}", kind])
        ranks = [rho for rho in self.accuracy.values() if np.isfinite(rho)]
        note = f"composite: {self.composite}"
        note += ", among random mixtures" if self.composite == "rank" else ""
        note += "; higher is better"
        if ranks:
            note += f"\nsurrogate: out-of-fold rank correlation {np.mean(ranks):.3f} (mean)"
        state = "converged" if self.converged else "not converged"
        note += f"\n{state}: further trials are expected to add {self.expected_gain:.4f} to the "
        note += f"composite; the noise of one trial is {self.noise:.4f}"
        return f"{_ruled(['', *objectives, 'composite', ''], rows)}\n{note}"


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _ruled(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with a line under its header."""
    lines = text_table([header, *rows])
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines)
