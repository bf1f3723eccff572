"""The probability mixture of a study: its components scored once, any mixture at once.

What is kept in ``<run_dir>/probabilities`` suffices to score mixtures: with it neither torch nor
lm-eval is needed, nor the components themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from optuna_demix._progress import Report
from optuna_demix.ensemble import ProbabilityMixture, RowStore
from optuna_demix.errors import NeedsModelError
from optuna_demix.scoring.functions import from_arrays, to_arrays
from optuna_demix.study.components import (
    arena_at,
    build_arena,
    merge_method,
    open_components,
    require_merging,
)
from optuna_demix.study.device import choose_device
from optuna_demix.study.evaluation import build_scorer
from optuna_demix.study.fingerprint import code_versions

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from optuna_demix._typing import FloatArray
    from optuna_demix.config import StudyConfig
    from optuna_demix.merging import Arena, ComponentSet, LiveModel
    from optuna_demix.mixture import MixtureSpace
    from optuna_demix.scoring import HarnessScorer
    from optuna_demix.scoring.functions import ScoreFunction
    from optuna_demix.scoring.replay import Replay

_FUNCTIONS = "functions"  # what is kept beside the rows
_LEAST_WEIGHT = 1e-6  # below which the slope of a power is taken as it is there
_CHECKED = 3  # random mixtures on which known scores are compared with lm-eval's
_CHUNK_VALUES = 1 << 22  # log-likelihoods held at a time


@dataclass(frozen=True)
class ProbabilityProxy:
    """Benchmark scores of any mixture, from the components' token probabilities.

    Attributes:
        mixture: Log-likelihoods of the requests.
        functions: The scores that are known functions of them.
        replay: All scores, through lm-eval's own code; ``None`` where only what was kept is known.
        plan: Name of the folder that keeps them.
        exponent: Component i counts as ``w_i ** exponent`` in the mixture, divided by their sum.
    """

    mixture: ProbabilityMixture
    functions: dict[str, ScoreFunction]
    replay: Replay | None
    plan: str
    exponent: float = 1.0

    @property
    def benchmarks(self) -> tuple[str, ...]:
        """Names of the benchmarks, B of them."""
        return tuple(self.functions) if self.replay is None else self.replay.benchmarks

    @property
    def slow(self) -> tuple[str, ...]:
        """Benchmarks that go through lm-eval for each mixture."""
        return tuple(name for name in self.benchmarks if name not in self.functions)

    def without_slow(self) -> ProbabilityProxy:
        """The same for the other benchmarks."""
        return replace(self, replay=None)

    @property
    def smooth(self) -> bool:
        """Whether every score has a derivative."""
        return not self.slow and all(function.smooth for function in self.functions.values())

    def scores(self, weights: ArrayLike) -> FloatArray:
        """Scores of mixtures, higher is better.

        Args:
            weights: Merge weights on the simplex, (n, K), in the order of the space.

        Returns:
            Scores (n, B), NaN where a metric is not finite.
        """
        W = np.asarray(weights, dtype=float)
        step = max(1, _CHUNK_VALUES // max(1, self.mixture.n_requests))
        parts = [self._scores(W[first : first + step]) for first in range(0, len(W), step)]
        return np.concatenate([np.empty((0, len(self.benchmarks))), *parts])

    def __call__(self, weights: ArrayLike) -> FloatArray:
        """:meth:`scores`, so that a sampler may take it as its prior mean."""
        return self.scores(weights)

    def gradients(self, w: ArrayLike) -> FloatArray:
        """Derivatives (B, K) of smooth scores with respect to the merge weights (K,)."""
        weights = np.asarray(w, dtype=float)
        v = self._shares(weights[None])[0]
        likelihoods = self.mixture.log_likelihoods(v[None])[0]
        slopes = [self.functions[name].slopes(likelihoods) for name in self.benchmarks]
        by_share = self.mixture.pull_back(v, np.stack(slopes))  # (B, K)
        if self.exponent == 1.0:
            return by_share
        # v_i = w_i^a / sum_j w_j^a; near 0 its slope grows beyond all bounds.
        growth = self.exponent * v / np.maximum(weights, _LEAST_WEIGHT)
        found: FloatArray = growth * (by_share - by_share @ v[:, None])
        return found

    def _shares(self, W: FloatArray) -> FloatArray:
        """What each component counts in the mixture (n, K), for merge weights (n, K)."""
        if self.exponent == 1.0:
            return W
        powers = np.maximum(W, 0.0) ** self.exponent
        shares: FloatArray = powers / powers.sum(axis=1, keepdims=True)
        return shares

    def _scores(self, W: FloatArray) -> FloatArray:
        likelihoods = self.mixture.log_likelihoods(self._shares(W))
        slow = self.slow
        replayed = [self.replay.scores(row) for row in likelihoods] if slow and self.replay else []
        columns = [
            np.array([scores[name] for scores in replayed])
            if name in slow
            else self.functions[name](likelihoods)
            for name in self.benchmarks
        ]
        scores = np.stack(columns, axis=1)
        return np.where(np.isfinite(scores), scores, np.nan)


def build_probabilities(
    config: StudyConfig,
    space: MixtureSpace,
    *,
    device: str = "auto",
    partial: bool = False,
    report: Callable[[str], None] | None = None,
) -> ProbabilityProxy:
    """Score each component of a study once, unless that was done, and mix their probabilities.

    What is computed is kept in ``<run_dir>/probabilities``, one file for each component. It goes
    by the component's content, the tasks and the libraries, so that a change of any makes new
    files. Several processes share the work.

    Args:
        config: The study.
        space: Its mixture.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:<number>``.
        partial: Leave benchmarks out that need more of a model than log-likelihoods.
        report: Called with a line before each long step.

    Raises:
        NeedsModelError: If benchmarks need more of a model than log-likelihoods; with
            ``partial`` only if all of them do.
        ComponentError: If a component cannot be used, or its probabilities are not finite.
        DemixError: If they cannot be written.
    """
    say = Report.of(report)
    require_merging(say)
    chosen = choose_device(device, config.scoring.device_map)
    components = open_components(config, report=say)

    from optuna_demix.merging import LiveModel

    arena = _plain_arena(config, components, say)
    with say.step(f"model on {chosen}, with its self-test"):
        model = LiveModel(
            arena,
            device=chosen,
            dtype=config.scoring.dtype,
            trust_remote_code=config.scoring.trust_remote_code,
        )
    scorer = build_scorer(config, model, report=say)
    return score_components(config, space, model, scorer, partial=partial, report=say)


def score_components(
    config: StudyConfig,
    space: MixtureSpace,
    model: LiveModel,
    scorer: HarnessScorer,
    *,
    partial: bool,
    report: Callable[[str], None],
) -> ProbabilityProxy:
    """The same with a model whose arena holds the components as they are, and its scorer.

    The model is another proxy afterwards.
    """
    from optuna_demix.scoring.digest import digest

    scorer, replay = _replay(config, model, scorer, partial=partial, report=report)
    counts = replay.token_counts()
    arena = model.arena
    plan = digest([scorer.plan_digest(), str(arena.dtype), code_versions()])[:32]

    def score(name: str) -> NDArray[np.float32]:
        model.merge([float(other == name) for other in model.names])
        return replay.token_log_probabilities()

    store = RowStore(config.run_path / "probabilities" / plan, int(counts.sum()))
    rows = store.complete(arena.digests, score, report=report)
    mixture = ProbabilityMixture([rows[name] for name in space.components], counts)
    samples = mixture.log_likelihoods(space.sample(_CHECKED, np.random.default_rng(0)))
    functions = replay.functions(samples)
    store.keep(_FUNCTIONS, {"counts": counts, **to_arrays(functions)})
    return ProbabilityProxy(mixture, functions, replay, plan, config.probabilities.exponent)


def _replay(
    config: StudyConfig,
    model: LiveModel,
    scorer: HarnessScorer,
    *,
    partial: bool,
    report: Callable[[str], None],
) -> tuple[HarnessScorer, Replay]:
    """A replay, and a scorer of those benchmarks alone that log-likelihoods are enough for."""
    kept = [benchmark.name for benchmark in scorer.benchmarks]
    while True:
        try:
            return scorer, scorer.replay()
        except NeedsModelError as error:
            kept = [name for name in kept if name not in error.benchmarks]
            if not partial or not kept:
                raise
        scorer = build_scorer(config, model, only=kept, report=report)


def find_probabilities(
    config: StudyConfig, space: MixtureSpace, plan: str, digests: Mapping[str, str]
) -> ProbabilityProxy | None:
    """What was kept of a study's probability mixture, where all of it is there.

    Args:
        config: The study.
        space: Its mixture.
        plan: Name of the folder.
        digests: Digest of each component.
    """
    store = RowStore(config.run_path / "probabilities" / plan)
    kept = store.kept(_FUNCTIONS)
    if kept is None or not set(space.components) <= set(digests):
        return None
    rows = [store.read(digests[name]) for name in space.components]
    try:
        counts, functions = kept["counts"], from_arrays(kept)
        present = [row for row in rows if row is not None and len(row) == int(counts.sum())]
        if len(present) < len(rows):
            return None
        mixture = ProbabilityMixture(present, counts)
        return ProbabilityProxy(mixture, functions, None, plan, config.probabilities.exponent)
    except (KeyError, ValueError):  # cut short, or of another version
        return None


def _plain_arena(config: StudyConfig, components: ComponentSet, report: Report) -> Arena:
    """The study's arena; where its merge method changes the components, one that does not."""
    from optuna_demix.merging import find_method

    plain = find_method("linear")
    if merge_method(config).preparation == plain.preparation:
        return build_arena(config, components, report=report)
    path = config.run_path / "probabilities" / "components.arena"
    return arena_at(path, config, components, method=plain, report=report)
