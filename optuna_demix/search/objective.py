"""``MixtureObjective``: merge, score, and tell Optuna, one trial at a time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import TYPE_CHECKING, Literal, cast

import numpy as np

from optuna_demix._wording import unknown_name
from optuna_demix.attributes import (
    BLOCKS_ATTR,
    CHEAP_PREFIX,
    FAILURE_ATTR,
    ITEMS_PREFIX,
    MERGED_PREFIX,
    OBJECTIVES_ATTR,
    PARTIAL_PREFIX,
    PROBABILITY_PREFIX,
    SAMPLING_SEED_ATTR,
    SCORE_PREFIX,
)
from optuna_demix.errors import ConfigError
from optuna_demix.search.engines import SamplingScorer
from optuna_demix.search.rows.targets import Targets, objective_layout
from optuna_demix.search.screening import is_in_the_race

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from optuna.trial import Trial

    from optuna_demix.mixture import MixtureSpace
    from optuna_demix.search.engines import (
        Model,
        Probabilities,
        RacingScorer,
        Scorer,
        ScreeningScorer,
    )


@dataclass(frozen=True)
class Scores:
    """Scores of one proxy.

    Attributes:
        benchmarks: By benchmark, higher is better.
        capabilities: By capability: the mean of its benchmarks.
        merged: What the merged model scored by benchmark, where it was one of two proxies.
        probabilities: What the probability mixture scored.
    """

    benchmarks: dict[str, float]
    capabilities: dict[str, float]
    merged: dict[str, float] = field(default_factory=dict)
    probabilities: dict[str, float] = field(default_factory=dict)


class MixtureObjective:
    """Objective that merges the components with a trial's weights and scores the proxy.

    It returns one value for each capability, or their weighted sum as a single one, all to be
    maximized. Each benchmark's score is written to the trial as the user attribute
    ``score:<benchmark>``, where :class:`~optuna_demix.DemixSampler` learns from it. A score
    that is not a number makes the trial fail, and that trial only.

    Example:
        .. code-block:: python

            objective = MixtureObjective(space, model, scorer, {"math": ["gsm8k/exact_match"]})
            study = optuna.create_study(direction="maximize", sampler=DemixSampler(space))
            study.optimize(objective, n_trials=100)

    Args:
        space: The mixture.
        model: Merges; its components must be those of the space. ``None`` where nothing is
            merged.
        scorer: Scores the merged model.
        capabilities: Benchmarks of each capability.
        weights: Weight of every capability in a single objective, none negative and not all 0;
            ``None`` for one objective each.
        probabilities: The probability mixture of the same components, where it counts.
        shares: How much of a benchmark's score is that of the probability mixture, from 0 to 1;
            the rest is the merged model's.
        merge_always: Merge and score also where no benchmark counts it, for comparison.
        racing: Score in blocks and ask the study's pruner after each; the scorer must be able to.
            What is reported: each ``"block"``'s own value, for
            :class:`optuna.pruners.WilcoxonPruner`, or the running ``"mean"``, for other pruners.
            A trial that is pruned keeps ``partial:<benchmark>`` and ``items:<benchmark>``, and
            its scores on each block, from which the sampler learns.
        keep: Let about this best share of the trials write the texts of screened benchmarks; the
            scorer must be able to leave them out. Others are pruned, and keep their other scores
            and ``cheap:<benchmark>``, from which the sampler learns; see
            :func:`~optuna_demix.search.screening.is_in_the_race`. ``None``: all trials do.

    Attributes:
        model: The model; ``None`` where no benchmark needs it, so that its memory is free.
        scorer: The scorer, where there is a model.
        probabilities: The probability mixture.

    Raises:
        ConfigError: If model and space have different components, a capability has no benchmark,
            the weights cannot be used, several objectives or two proxies are to be raced, a
            benchmark has no proxy, or trials are to be screened in a way that cannot be.
    """

    def __init__(
        self,
        space: MixtureSpace,
        model: Model | None,
        scorer: Scorer | None,
        capabilities: Mapping[str, Sequence[str]],
        *,
        weights: Mapping[str, float] | None = None,
        probabilities: Probabilities | None = None,
        shares: Mapping[str, float] | None = None,
        merge_always: bool = False,
        racing: Literal["block", "mean"] | None = None,
        keep: float | None = None,
    ) -> None:
        _check_capabilities(capabilities)
        if weights is not None:
            _check_weights(weights, capabilities)
        if racing is not None and weights is None and len(capabilities) > 1:
            raise ConfigError(
                f"racing needs a single objective, not {len(capabilities)}: Optuna does not prune "
                "trials of several; give the capabilities weights or leave racing off"
            )
        self.capabilities = {name: list(items) for name, items in capabilities.items()}
        known = () if probabilities is None else probabilities.benchmarks
        self._shares = {
            name: (shares or {}).get(name, 0.0) if name in known else 0.0
            for name in self.benchmarks
        }
        if racing is not None and any(self._shares.values()):
            raise ConfigError(
                "racing compares merged proxies block by block; leave it off, or the "
                "probability mixture"
            )
        if keep is not None and not 0.0 < keep <= 1.0:
            raise ConfigError(f"keep must be a share above 0 and up to 1, got {keep!r}")
        if keep is not None and racing is not None:
            raise ConfigError("trials can be raced or screened, not both; leave one of them off")
        merges = merge_always or any(share < 1.0 for share in self._shares.values())
        if merges and (model is None or scorer is None):
            raise ConfigError("benchmarks that merged proxies are scored on need a model")
        if model is not None and sorted(model.names) != sorted(space.components):
            raise ConfigError(
                f"the model merges {', '.join(model.names)} but the mixture weighs "
                f"{', '.join(space.components)}; name the same components in both"
            )
        self.space = space
        self.model = model if merges else None
        self.scorer = scorer if merges else None
        self.probabilities = probabilities
        self._racing, self._keep = racing, keep
        self._weights = None if weights is None else dict(weights)
        names = space.components if model is None else model.names
        self._order = [space.components.index(name) for name in names]

    def score(
        self, weights: NDArray[np.float64] | Mapping[str, float], *, seed: int | None = None
    ) -> Scores:
        """Score the proxies of weights (K,), in the order of the space or by component.

        Args:
            weights: The merge weights.
            seed: Of sampled texts; by default they are the scorer's own.

        Raises:
            ConfigError: If they are not one weight for each component.
        """
        w = self._checked(weights)
        merged = {} if self.model is None else self._merge_and_score(w, seed)
        return self._joined(w, merged)

    def _merge_and_score(self, w: NDArray[np.float64], seed: int | None) -> dict[str, float]:
        assert self.model is not None and self.scorer is not None
        self.model.merge(w[self._order])
        if seed is None:
            return self.scorer.score()
        return cast("SamplingScorer", self.scorer).score(seed=seed)

    def _seed(self, trial: Trial) -> int | None:
        """The seed of a trial's sampled texts, written to it."""
        if not isinstance(self.scorer, SamplingScorer):
            return None
        seed = trial.user_attrs.get(SAMPLING_SEED_ATTR)
        if seed is None:
            seed = self.scorer.seed_of(trial.number)
            if seed is not None:
                trial.set_user_attr(SAMPLING_SEED_ATTR, seed)
        return seed

    def _joined(self, w: NDArray[np.float64], merged: Mapping[str, float]) -> Scores:
        """Scores of weights (K,) from those of the merged model."""
        if self.probabilities is None:
            return self._scores(merged)
        mixed, both = self._mix(w, merged)
        return replace(self._scores(both), merged=dict(merged), probabilities=mixed)

    def _mix(
        self, w: NDArray[np.float64], merged: Mapping[str, float]
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Scores of the probability mixture, and of both proxies as far as there are all."""
        if self.probabilities is None:
            return {}, dict(merged)
        row = self.probabilities.scores(w[None])[0]
        mixed = dict(zip(self.probabilities.benchmarks, row.tolist(), strict=True))
        both = {}
        for name, share in self._shares.items():
            part = share * mixed[name] if share > 0.0 else 0.0
            if share == 1.0 or name in merged:
                both[name] = part + (1.0 - share) * merged[name] if share < 1.0 else part
        return mixed, both

    def _checked(self, weights: NDArray[np.float64] | Mapping[str, float]) -> NDArray[np.float64]:
        """Weights (K,) in the order of the space."""
        components = self.space.components
        if isinstance(weights, Mapping):
            for name in weights:
                if name not in components:
                    raise ConfigError(unknown_name(name, components, "component"))
            missing = [name for name in components if name not in weights]
            if missing:
                raise ConfigError(
                    f"there is no merge weight of component {missing[0]!r}; give one"
                )
            weights = np.array([weights[name] for name in components])
        merged = np.asarray(weights, dtype=float)
        if merged.shape != (len(components),):
            raise ConfigError(
                f"got {merged.size} merge weights; give one each for {', '.join(components)}"
            )
        return merged

    def _scores(self, benchmarks: Mapping[str, float]) -> Scores:
        capabilities = {
            capability: float(np.mean([benchmarks[name] for name in names]))
            for capability, names in self.capabilities.items()
        }
        return Scores(dict(benchmarks), capabilities)

    @property
    def benchmarks(self) -> list[str]:
        """Names of all benchmarks."""
        return [name for names in self.capabilities.values() for name in names]

    def values(self, scores: Scores) -> list[float]:
        """Objective values of scores: what a trial reports."""
        if self._weights is None:
            return list(scores.capabilities.values())
        return [sum(w * scores.capabilities[name] for name, w in self._weights.items())]

    def layout(self) -> list[dict[str, float]]:
        """How the objectives follow from the benchmarks; see :func:`objective_layout`."""
        return objective_layout(self.capabilities, self._weights)

    def __call__(self, trial: Trial) -> float | list[float]:
        """Score one trial.

        Returns:
            One value for each objective, or a single number where there is one.

        Raises:
            optuna.TrialPruned: If it is raced and the study's pruner drops it, or screened out.
        """
        layout = self.layout()
        if trial.study.user_attrs.get(OBJECTIVES_ATTR) != layout:
            trial.study.set_user_attr(OBJECTIVES_ATTR, layout)
        weights = self.space.suggest(trial)
        seed = self._seed(trial)
        if self._racing is not None:
            scores = self._race(trial, weights, seed)
        elif self._keep is not None and self.model is not None:
            scores = self._screen(trial, self._checked(weights), seed, self._keep)
        else:
            scores = self.score(weights, seed=seed)
        bad = [name for name, score in scores.benchmarks.items() if not math.isfinite(score)]
        for name, score in scores.benchmarks.items():
            if math.isfinite(score):
                trial.set_user_attr(SCORE_PREFIX + name, float(score))
        if scores.merged and scores.probabilities:
            self._write_both(trial, scores)
        if bad:
            trial.set_user_attr(FAILURE_ATTR, f"no finite score for {', '.join(bad)}")
            values: list[float] = [math.nan] * len(layout)
        else:
            values = self.values(scores)
        return values[0] if len(values) == 1 else values

    def _write_both(self, trial: Trial, scores: Scores) -> None:
        """Tell what each of two proxies scored, where that is not the score itself."""
        for name in scores.merged.keys() & scores.probabilities.keys():
            for prefix, found in (
                (MERGED_PREFIX, scores.merged[name]),
                (PROBABILITY_PREFIX, scores.probabilities[name]),
            ):
                if math.isfinite(found):
                    trial.set_user_attr(prefix + name, float(found))

    def _screen(
        self, trial: Trial, w: NDArray[np.float64], seed: int | None, keep: float
    ) -> Scores:
        """Score weights (K,), and the texts of screened benchmarks if that is worth it."""
        from optuna import TrialPruned

        assert self.model is not None
        scorer = cast("ScreeningScorer", self.scorer)
        self.model.merge(w[self._order])
        found = scorer.score_cheaply(seed=seed)
        _, scores = self._mix(w, found.scores)
        if all(map(math.isfinite, [*scores.values(), *found.cheap.values()])):
            # Cheap scores come last: whoever sees them sees the others.
            for prefix, some in ((SCORE_PREFIX, scores), (CHEAP_PREFIX, found.cheap)):
                for name, score in some.items():
                    trial.set_user_attr(prefix + name, float(score))
            trials = trial.study.get_trials(deepcopy=False)
            own = next(t for t in trials if t.number == trial.number)
            if not is_in_the_race(own, trials, Targets.of(trial.study), keep=keep):
                raise TrialPruned("no texts: by its cheap scores it is not among the best")
            return self._joined(w, scorer.score_screened())
        broken = {n: s for n, s in found.cheap.items() if not math.isfinite(s)}
        return Scores({**scores, **broken}, {})

    def _race(self, trial: Trial, weights: Mapping[str, float], seed: int | None) -> Scores:
        """Score block by block, as far as the study's pruner lets it."""
        from optuna import TrialPruned

        assert self.model is not None
        self.model.merge(self._checked(weights)[self._order])
        blocks: dict[str, list[float]] = {}
        if seed is None:
            race = cast("RacingScorer", self.scorer).race()
        else:
            race = cast("SamplingScorer", self.scorer).race(seed=seed)
        for step, seen in enumerate(race):
            for name, score in seen.block.items():
                blocks.setdefault(name, []).append(score)
            reported = seen.block if self._racing == "block" else seen.so_far
            value = self.values(self._scores(reported))[0]
            if not math.isfinite(value):  # a broken proxy: the trial will fail
                return Scores(
                    {n: math.nan for n, s in reported.items() if not math.isfinite(s)}, {}
                )
            trial.report(value, step)
            if not seen.last and trial.should_prune():
                trial.set_user_attr(BLOCKS_ATTR, blocks)
                for name, score in seen.so_far.items():
                    trial.set_user_attr(PARTIAL_PREFIX + name, score)
                    trial.set_user_attr(ITEMS_PREFIX + name, seen.items[name])
                raise TrialPruned(f"dropped after {step + 1} blocks of items")
        trial.set_user_attr(BLOCKS_ATTR, blocks)
        return self._scores(seen.so_far)


def _check_capabilities(capabilities: Mapping[str, Sequence[str]]) -> None:
    if not capabilities:
        raise ConfigError("there is no capability to score; name at least one")
    for name, benchmarks in capabilities.items():
        if not benchmarks:
            raise ConfigError(f"capability {name!r} has no benchmark; add one or remove it")


def _check_weights(weights: Mapping[str, float], capabilities: Mapping[str, object]) -> None:
    for name, weight in weights.items():
        if name not in capabilities:
            raise ConfigError(f"weights: {unknown_name(name, capabilities, 'capability')}")
        if not isinstance(weight, Real) or not 0 <= float(weight) < math.inf:
            raise ConfigError(
                f"weights: the weight of capability {name!r} is {weight!r}; give a finite number "
                "from 0 on"
            )
    for name in capabilities:
        if name not in weights:
            raise ConfigError(
                f"weights: there is no weight of capability {name!r}; give one, 0 to leave it out"
            )
    if not any(weights.values()):
        raise ConfigError("weights: they are all 0; give one capability a positive weight")
