"""The final mixture of a study: what to train on, what it should score, how sure that is."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from optuna_demix._convergence import least_trials
from optuna_demix.errors import StudyError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from optuna.study import Study

    from optuna_demix._fit import Fit
    from optuna_demix._history import Arrays
    from optuna_demix.mixture import MixtureSpace
    from optuna_demix.surrogate._validation import Validation

    FloatArray = NDArray[np.float64]

_POOL = 4096  # fresh candidates; as many again grow around the best trials
_GENERATIONS = 4  # refinements of the best candidates
_AVERAGE = 32  # candidates whose mean is recommended: their errors cancel (paper, appendix B)
_RADIUS = 0.05  # total variation within which they lie
_MIN_TRIALS = 2


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
        return f"{title}\n{_table(['', 'merge weight', 'data share'], rows)}"

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
        return f"{_table(['', *objectives, 'composite', ''], rows)}\n{note}"


@dataclass(frozen=True)
class Analysis:
    """A recommendation and what it was made of.

    Attributes:
        recommendation: The recommendation.
        space: The mixture.
        objectives: Names of the objectives, m of them.
        fit: The surrogate, fitted to all rows, with its pool of candidates.
        validation: Its held-out accuracy.
        trials: The rows it was fitted to, those of earlier studies first.
        n_warm: Number of rows of earlier studies.
    """

    recommendation: Recommendation
    space: MixtureSpace
    objectives: tuple[str, ...]
    fit: Fit
    validation: Validation
    trials: Arrays
    n_warm: int


def recommend(
    study: Study,
    space: MixtureSpace,
    *,
    surrogate: str | None = None,
    composite: str | Sequence[float] = "rank",
    schedule: str = "continuous",
    kl: float = 0.0,
    warm_start: Sequence[Study] = (),
    seed: int = 0,
) -> Recommendation:
    """Find the mixture with the best predicted merit.

    The surrogate is fitted to all finished trials and ranks a large pool of candidates; the
    recommendation is the mean of the best ones around the very best, which lies inside the
    constraints as they do.
    With ``schedule="paper"`` the pool and the number averaged are those of the paper.

    Args:
        study: The study; trials of any sampler will do.
        space: Its mixture.
        surrogate: Kind of the surrogate; default ``"auto"``, for the paper ``"lightgbm"``.
        composite: Merit of several objectives: ``"rank"``, ``"mean"`` or weights.
        schedule: ``"continuous"`` or ``"paper"``.
        kl: Merit given up for each nat of divergence from the prior, as in ``DemixSampler``.
        warm_start: Earlier studies to learn from as well, as in ``DemixSampler``.
        seed: Seed of the pool and the surrogate.

    Returns:
        The recommendation, with predicted scores; see :func:`verify`.

    Raises:
        StudyError: If the study has fewer than two finished trials with this mixture.
    """
    return analyse(
        study,
        space,
        surrogate=surrogate,
        composite=composite,
        schedule=schedule,
        kl=kl,
        warm_start=warm_start,
        seed=seed,
    ).recommendation


def analyse(
    study: Study,
    space: MixtureSpace,
    *,
    surrogate: str | None = None,
    composite: str | Sequence[float] = "rank",
    schedule: str = "continuous",
    kl: float = 0.0,
    warm_start: Sequence[Study] = (),
    seed: int = 0,
) -> Analysis:
    """As :func:`recommend`, with all that the recommendation was made of."""
    from optuna_demix._convergence import converge
    from optuna_demix._fit import Fit, observed_merit
    from optuna_demix._history import History, Targets
    from optuna_demix._joint_space import JointSpace
    from optuna_demix._warm_start import warm_rows
    from optuna_demix.sampler import PAPER_AVERAGE, PAPER_POOL, paper_best
    from optuna_demix.surrogate._acquire import Composite, finite_scores

    if composite == "pareto":
        composite = "rank"  # a single mixture is asked for
    joint = JointSpace([space], {})
    targets = Targets.of(study)
    warm = [
        row
        for earlier in warm_start
        for row in warm_rows(earlier, joint, targets, own=earlier is study)[0]
    ]
    history = History(joint, targets, warm)
    history.update(study.get_trials(deepcopy=False))
    n_own = len(history) - history.n_warm
    if n_own < _MIN_TRIALS:
        raise StudyError(
            f"study {study.study_name!r} has {n_own} finished trials of this mixture "
            f"({', '.join(space.components)}); run at least {_MIN_TRIALS}"
        )
    if not history.arrays().complete[history.n_warm :].any():
        raise StudyError(
            f"study {study.study_name!r}: all {n_own} finished trials of this mixture were "
            "pruned; choose a pruner that lets some complete"
        )
    kind = surrogate or ("lightgbm" if schedule == "paper" else "auto")
    fit = Fit(kind, joint, targets, history.arrays(), seed)
    trials = fit.trials
    fit.grow_pool(composite, size=_POOL, generations=_GENERATIONS, optimism=0.0)
    # Ranks among random mixtures, as in the paper: those among the trials would depend on where
    # the search has crowded.
    merit = Composite(composite, fit.reference)
    outlook = converge(fit, merit, kl=kl)
    if schedule == "paper":
        final = paper_best(fit, composite, PAPER_POOL, PAPER_AVERAGE).mean(axis=0)
    else:
        final = fit.best_mean(outlook.merit, _AVERAGE, radius=_RADIUS)
    observed = observed_merit(merit(finite_scores(trials.V)), trials)
    best_index = history.n_warm + int(np.argmax(observed[history.n_warm :]))
    rows = {
        "prior": np.asarray(space.prior),
        "uniform": space.project(np.full(len(space.components), 1.0 / len(space.components))),
        "best_trial": trials.X[best_index],
        "recommended": space.project(final),
    }
    stacked = np.stack(list(rows.values()))
    predicted = fit.predict(stacked)
    mean, std = predicted.mean, predicted.std
    names = objective_names_of(study)
    mixtures = {
        name: _mixture(
            space, rows[name], names, mean[i] * targets.signs, std[i], float(merit(mean[[i]])[0])
        )
        for i, name in enumerate(rows)
    }
    validation = fit.surrogate.validate()
    recommendation = Recommendation(
        study_name=study.study_name,
        mixtures=mixtures,
        best_trial=int(trials.numbers[best_index]),
        n_trials=len(history),
        expected_gain=outlook.expected_gain,
        noise=outlook.noise,
        accuracy=dict(zip(targets.benchmarks or names, validation.spearman.tolist(), strict=True)),
        composite=composite if isinstance(composite, str) else "weighted mean",
        merit=merit,
    )
    return Analysis(recommendation, space, tuple(names), fit, validation, trials, history.n_warm)


def verify(
    recommendation: Recommendation,
    study: Study,
    score: Callable[[Mapping[str, float]], Sequence[float]],
    *,
    done: Callable[[], object] | None = None,
) -> Recommendation:
    """Measure every mixture of a recommendation instead of predicting it.

    Args:
        recommendation: What to measure.
        study: The study it came from.
        score: Objective values (m,) of merge weights by component.
        done: Called after each mixture.

    Returns:
        The same recommendation with measured scores and composites.
    """
    from optuna_demix._history import Targets

    signs = Targets.of(study).signs
    measured = {}
    for name, mixture in recommendation.mixtures.items():
        values = np.asarray(score(mixture.merge_weights), dtype=float)
        measured[name] = replace(
            mixture,
            capabilities=dict(zip(mixture.capabilities, values.tolist(), strict=True)),
            std={},
            composite=float(recommendation.merit(values[None] * signs)[0]),
            measured=True,
        )
        if done is not None:
            done()
    return replace(recommendation, mixtures=measured)


def _mixture(
    space: MixtureSpace,
    weights: FloatArray,
    names: Sequence[str],
    mean: FloatArray,
    std: FloatArray,
    composite: float,
) -> Mixture:
    shares = space.data_shares(weights)
    return Mixture(
        merge_weights=dict(zip(space.components, weights.tolist(), strict=True)),
        data_shares=dict(zip(space.datasets, shares.tolist(), strict=True)),
        capabilities=dict(zip(names, mean.tolist(), strict=True)),
        std=dict(zip(names, std.tolist(), strict=True)),
        composite=composite,
        measured=False,
    )


def objective_names_of(study: Study) -> list[str]:
    """Names of a study's objectives: its metric names, else ``value`` or ``value 0`` and so on."""
    names = study.metric_names
    if names is not None:
        return list(names)
    n = len(study.directions)
    return ["value"] if n == 1 else [f"value {i}" for i in range(n)]


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [header, *rows]
    ]
    lines.insert(1, "-" * max(len(line) for line in lines))
    return "\n".join(lines)
