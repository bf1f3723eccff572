"""A recommendation, as object, table and JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from optuna_demix._text_table import ruled_table
from optuna_demix._wording import counted
from optuna_demix.errors import StudyError
from optuna_demix.search import _confidence
from optuna_demix.search._weights import Weights

if TYPE_CHECKING:
    from optuna_demix.search.proposals.acquisition import Composite

_SAME = 1e-9  # difference of two merge weights below which they are the same
_NAMED = 4  # largest data shares that are named for each member of a front


@dataclass(frozen=True)
class Mixture:
    """A mixture with the other parameters of its trial, and its scores.

    Attributes:
        weights: Merge weights and data shares by name of the mixture, ``""`` where it has none.
        params: Values of the other static parameters of the study by name.
        capabilities: Score by objective, in the study's own orientation.
        std: Standard deviation of a predicted score by objective; empty for measured ones.
        composite: Merit, higher is better: for ``"rank"`` the mean over objectives of the share
            of random mixtures that it beats (1: all of them, in everything).
        merit: The same as candidates are ordered by it: a rank goes on beyond 0 and 1.
        measured: Whether the scores were measured by a merge, and not predicted.
    """

    weights: dict[str, Weights]
    params: dict[str, Any]
    capabilities: dict[str, float]
    std: dict[str, float]
    composite: float
    merit: float
    measured: bool

    @property
    def merge_weights(self) -> dict[str, float]:
        """Merge weights by component, where the study has one mixture.

        Raises:
            StudyError: If it has several: see ``weights``.
        """
        return self._only().merge_weights

    @property
    def data_shares(self) -> dict[str, float]:
        """Data shares by dataset, where the study has one mixture.

        Raises:
            StudyError: If it has several: see ``weights``.
        """
        return self._only().data_shares

    def _only(self) -> Weights:
        if len(self.weights) > 1:
            raise StudyError(
                f"the study has {len(self.weights)} mixtures; take weights[name] of "
                f"{', '.join(map(repr, self.weights))}"
            )
        return next(iter(self.weights.values()))

    def in_words(self) -> str:
        """The largest data shares of each mixture, then the other parameters."""
        parts = [
            (f"{name}: " if len(self.weights) > 1 else "") + _largest(weights.data_shares)
            for name, weights in self.weights.items()
        ]
        parts += [f"{name} = {_value(value)}" for name, value in self.params.items()]
        return "; ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON can hold it; with several mixtures, weights are by their name."""
        merge_weights: dict[str, Any] = {n: w.merge_weights for n, w in self.weights.items()}
        data_shares: dict[str, Any] = {n: w.data_shares for n, w in self.weights.items()}
        further: dict[str, Any] = {}
        if len(self.weights) == 1:
            merge_weights, data_shares = self.merge_weights, self.data_shares
            further = self._only().to_dict()
        return {
            "merge_weights": merge_weights,
            "data_shares": data_shares,
            **further,
            "params": self.params,
            "capabilities": self.capabilities,
            "std": self.std,
            "composite": self.composite,
            "measured": self.measured,
        }


@dataclass(frozen=True)
class Recommendation:
    """The recommended mixture of a study beside those it has to beat.

    Attributes:
        study_name: The study.
        mixtures: ``prior``, ``uniform``, ``best_trial`` and ``recommended``. The first two have
            the other parameters of the last.
        front: With the composite ``"pareto"`` the predicted trade-offs: mixtures of which none
            is predicted to be better than another in every objective, at most 20 of them spread
            along the front, the best in the first objective first. Else empty.
        best_trial: Number of the trial with the best composite.
        n_trials: Number of trials it was learned from, those of earlier studies included.
        n_warm: Number of trials of earlier studies.
        least_trials: Trials of the study itself from which on it can have converged.
        accuracy: Out-of-fold rank correlation of the surrogate by benchmark; NaN where there are
            too few trials.
        tells_apart: Whether the surrogate predicts different scores for different mixtures.
        composite: How objectives make one merit.
        expected_gain: Merit that the most promising candidate is expected to add to the best
            predicted one, in units of the noise of one trial's merit.
        noise: By objective, standard deviation of one trial's score about its prediction, near
            the best.
        merit: Merit of oriented objective scores (n, m), as it ranked the candidates.
        estimated: By benchmark that not every trial was scored on, from raced or screened trials:
            in how many of them its score is estimated.
    """

    study_name: str
    mixtures: dict[str, Mixture]
    front: tuple[Mixture, ...]
    best_trial: int
    n_trials: int
    n_warm: int
    least_trials: int
    accuracy: dict[str, float]
    tells_apart: bool
    composite: str
    expected_gain: float
    noise: dict[str, float]
    merit: Composite = field(repr=False, compare=False)
    estimated: dict[str, int] = field(default_factory=dict)

    @property
    def merge_weights(self) -> dict[str, float]:
        """Merge weights of the recommended mixture, by component.

        Raises:
            StudyError: If the study has several mixtures: see ``mixtures["recommended"]``.
        """
        return self.mixtures["recommended"].merge_weights

    @property
    def data_shares(self) -> dict[str, float]:
        """Data shares of the recommended mixture, by dataset: what to train on.

        Raises:
            StudyError: If the study has several mixtures: see ``mixtures["recommended"]``.
        """
        return self.mixtures["recommended"].data_shares

    @property
    def params(self) -> dict[str, Any]:
        """Recommended values of the other static parameters, by name."""
        return self.mixtures["recommended"].params

    @property
    def converged(self) -> bool:
        """Whether the expected gain is at most the noise of one trial, as far as can be told.

        Never with fewer than ``least_trials``, nor where predictions hardly rank mixtures.
        """
        return _confidence.can_tell(self) and self.expected_gain <= 1.0

    @property
    def outlook(self) -> str:
        """What further trials are expected to add, in words."""
        return _confidence.outlook(self)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Why the recommended mixture is not to be trusted, one line each; mostly none."""
        return tuple(_confidence.warnings(self))

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON can hold it (NaN becomes ``None``)."""
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "merit"}
        plain = {"warnings": list(self.warnings), **plain, "converged": self.converged}
        plain["mixtures"] = {name: mixture.to_dict() for name, mixture in self.mixtures.items()}
        plain["front"] = [mixture.to_dict() for mixture in self.front]
        result: dict[str, Any] = without_nan(plain)
        return result

    def to_json(self) -> str:
        """Everything, as JSON; a category that JSON does not know becomes its text."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False, default=str)

    def __str__(self) -> str:
        """Tables: what the recommended mixture is, how it compares, and the front."""
        title = f"Recommended mixture of {self.study_name!r}, from {self._trials()}"
        tables = [f"{title}\n{self._shares_table()}"]
        if self.params:
            tables.append(self._params_table())
        tables.append(self._scores_table())
        if self.front:
            tables.append(self._front_table())
        if self.warnings:
            tables.insert(0, "\n".join(f"warning: {line}" for line in self.warnings))
        return "\n\n".join(tables)

    def _trials(self) -> str:
        own = counted(self.n_trials - self.n_warm, "trial")
        return f"{own} and {self.n_warm} of earlier studies" if self.n_warm else own

    def _shares_table(self) -> str:
        mixtures = self.mixtures["recommended"].weights
        titles = list(mixtures) if len(mixtures) > 1 else [""]
        tables = zip(titles, mixtures.values(), strict=True)
        return "\n\n".join(weights.tables(title) for title, weights in tables)

    def _params_table(self) -> str:
        names = list(self.params)
        rows = [
            [self._label(key), *(_value(self.mixtures[key].params[name]) for name in names)]
            for key in ("best_trial", "recommended")
        ]
        note = "prior and uniform below have the other parameters of the recommended mixture"
        return f"{ruled_table(['', *names], rows)}\n{note}"

    def _scores_table(self) -> str:
        objectives = list(self.mixtures["recommended"].capabilities)
        rows = [
            [
                " = ".join(map(self._label, keys)),
                *_scores(mixture),
                f"{mixture.composite:.3f}",
                "measured" if mixture.measured else "predicted",
            ]
            for keys in distinct_mixtures(self.mixtures)
            for mixture in [self.mixtures[keys[0]]]
        ]
        note = composite_note(self.composite)
        rho = _confidence.rank_correlation(self.accuracy.values())
        if np.isfinite(rho):
            note += f"\nsurrogate: out-of-fold rank correlation {rho:.3f} (mean)"
        for name, count in self.estimated.items():
            scored = f"scored in {self.n_trials - count} of {counted(self.n_trials, 'trial')}"
            note += f"\n{name}: {scored}, estimated in the others"
        note += f"\n{self.outlook}"
        return f"{ruled_table(['', *objectives, 'composite', ''], rows)}\n{note}"

    def _front_table(self) -> str:
        objectives = list(self.mixtures["recommended"].capabilities)
        rows = [
            [mixture.in_words(), *_scores(mixture), f"{mixture.composite:.3f}"]
            for mixture in self.front
        ]
        return (
            f"Front: {counted(len(self.front), 'mixture')} of which none is predicted to be "
            "better than another in every objective\n"
            f"{ruled_table(['data shares', *objectives, 'composite'], rows)}\n"
            "The recommended mixture is the one on the front with the best mean percentile rank\n"
            "among random mixtures. Every other one is as good a choice for another trade-off."
        )

    def _label(self, key: str) -> str:
        return f"best trial ({self.best_trial})" if key == "best_trial" else key


def distinct_mixtures(mixtures: Mapping[str, Mixture]) -> list[list[str]]:
    """Names of mixtures, those of the same one together: a prior may be uniform."""
    groups: list[list[str]] = []
    for name, mixture in mixtures.items():
        alike = (group for group in groups if _is_same(mixtures[group[0]], mixture))
        group = next(alike, None)
        if group is None:
            groups.append([name])
        else:
            group.append(name)
    return groups


def _is_same(one: Mixture, other: Mixture) -> bool:
    return one.params == other.params and all(
        abs(w - other.weights[key].merge_weights[name]) < _SAME
        for key, weights in one.weights.items()
        for name, w in weights.merge_weights.items()
    )


def _scores(mixture: Mixture) -> list[str]:
    return [
        f"{score:.4f}" + (f" ±{mixture.std[name]:.4f}" if name in mixture.std else "")
        for name, score in mixture.capabilities.items()
    ]


def _largest(shares: Mapping[str, float]) -> str:
    """The largest shares in words."""
    largest = sorted(shares, key=lambda name: -shares[name])[:_NAMED]
    text = ", ".join(f"{name} {shares[name]:.3f}" for name in largest)
    return f"{text}, …" if len(shares) > _NAMED else text


def composite_note(composite: str) -> str:
    """How objectives make the composite of a table, in words."""
    among = ", among random mixtures" if composite == "rank" else ""
    return f"composite: {composite}{among}; higher is better"


def without_nan(value: Any) -> Any:
    """Plain data as JSON can hold it: numbers that are not finite become ``None``."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
