"""The recommendation of a study's probability mixture, which needs no trials."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from optuna_demix._text_table import ruled_table
from optuna_demix.config.study import objective_names
from optuna_demix.errors import TaskError
from optuna_demix.search._result import composite_note, without_nan
from optuna_demix.search._weights import Weights

if TYPE_CHECKING:
    from optuna_demix._typing import FloatArray
    from optuna_demix.config import StudyConfig
    from optuna_demix.mixture import MixtureSpace
    from optuna_demix.study.probabilities import ProbabilityProxy

PREDICTED_BY = "probability mixture"


@dataclass(frozen=True)
class PredictedMixture:
    """One mixture and what the probability mixture makes of it.

    Attributes:
        weights: Merge weights and data shares.
        capabilities: Score by objective, higher is better.
        composite: Merit, higher is better.
    """

    weights: Weights
    capabilities: dict[str, float]
    composite: float

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON can hold it."""
        return {
            "merge_weights": self.weights.merge_weights,
            "data_shares": self.weights.data_shares,
            **self.weights.to_dict(),
            "capabilities": self.capabilities,
            "composite": self.composite,
        }


@dataclass(frozen=True)
class DirectRecommendation:
    """The best mixture by the probability mixture, beside those it has to beat.

    Attributes:
        mixtures: ``prior``, ``uniform`` and ``recommended``.
        composite: How objectives make one merit.
        predicted_by: What the scores come from.
    """

    mixtures: dict[str, PredictedMixture]
    composite: str
    predicted_by: str = PREDICTED_BY

    @property
    def merge_weights(self) -> dict[str, float]:
        """Merge weights of the recommended mixture, by component."""
        return self.mixtures["recommended"].weights.merge_weights

    @property
    def data_shares(self) -> dict[str, float]:
        """Data shares of the recommended mixture, by dataset: what to train on."""
        return self.mixtures["recommended"].weights.data_shares

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON can hold it (numbers that are not finite become ``None``)."""
        plain = asdict(self)
        plain["mixtures"] = {name: one.to_dict() for name, one in self.mixtures.items()}
        result: dict[str, Any] = without_nan(plain)
        return result

    def to_json(self) -> str:
        """Everything, as JSON."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def __str__(self) -> str:
        """Two tables: what the recommended mixture is, and how it compares."""
        objectives = list(self.mixtures["recommended"].capabilities)
        scores = [
            [
                name,
                *(f"{mixture.capabilities[objective]:.4f}" for objective in objectives),
                f"{mixture.composite:.3f}",
                "predicted",
            ]
            for name, mixture in self.mixtures.items()
        ]
        return "\n".join(
            [
                f"Recommended mixture, predicted by the {self.predicted_by}",
                self.mixtures["recommended"].weights.tables(),
                "",
                ruled_table(["", *objectives, "composite", ""], scores),
                composite_note(self.composite),
                "predicted from the components' token probabilities; nothing was merged",
            ]
        )


def recommend_directly(
    config: StudyConfig, space: MixtureSpace, proxy: ProbabilityProxy
) -> DirectRecommendation:
    """Optimize the composite of a study over its probability mixture.

    Args:
        config: The study: its objectives, composite, pull to the prior and seed.
        space: Its mixture.
        proxy: What scores mixtures.

    Raises:
        TaskError: If a benchmark is not finite under any mixture.
    """
    from optuna_demix.search.direct import optimize
    from optuna_demix.study.search import layout_of, options_from

    layout = layout_of(config)
    # (m, B): how objectives follow from benchmarks
    M = np.array([[part.get(name, 0.0) for name in proxy.benchmarks] for part in layout])

    def values(W: FloatArray) -> FloatArray:
        found: FloatArray = proxy.scores(W) @ M.T
        return found

    def gradients(w: FloatArray) -> FloatArray:
        found: FloatArray = M @ proxy.gradients(w)
        return found

    options = options_from(config)
    how = options.scalar_composite
    optimum = optimize(
        space,
        values,
        gradients=gradients if proxy.smooth else None,
        composite=how,
        kl=options.kl,
        seed=options.seed or 0,
    )
    scores = proxy.scores(optimum.weights[None])[0]
    if not np.isfinite(scores).all():
        name = proxy.benchmarks[int(np.argmin(np.isfinite(scores)))]
        raise TaskError(
            f"{config.source}: benchmark {name!r} has no finite score under any mixture that was "
            "tried; use another metric of its task"
        )
    W = np.stack([space.prior, space.uniform, optimum.weights])
    # A uniform prior is scored once: through lm-eval that takes a while.
    once, of = np.unique(W, axis=0, return_inverse=True)
    rows = zip(W, values(once)[of.ravel()], optimum.composite(once)[of.ravel()], strict=True)
    return DirectRecommendation(
        mixtures={
            name: PredictedMixture(
                Weights.of(space, w),
                dict(zip(objective_names(config), y.tolist(), strict=True)),
                float(merit),
            )
            for name, (w, y, merit) in zip(("prior", "uniform", "recommended"), rows, strict=True)
        },
        composite=how if isinstance(how, str) else "weighted mean",
    )
