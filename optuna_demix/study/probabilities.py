"""The probability mixture of a study: its components scored once, any mixture at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from optuna_demix.ensemble import ProbabilityMixture, RowStore
from optuna_demix.errors import NeedsModelError
from optuna_demix.study.components import (
    announce,
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

_CHECKED = 3  # random mixtures on which known scores are compared with lm-eval's
_CHUNK_VALUES = 1 << 22  # log-likelihoods held at a time


@dataclass(frozen=True)
class ProbabilityProxy:
    """Benchmark scores of any mixture, from the components' token probabilities.

    Attributes:
        mixture: Log-likelihoods of the requests.
        replay: Their scores, through lm-eval's own code.
        functions: The scores that are known functions of them.
    """

    mixture: ProbabilityMixture
    replay: Replay
    functions: dict[str, ScoreFunction]

    @property
    def benchmarks(self) -> tuple[str, ...]:
        """Names of the benchmarks, B of them."""
        return self.replay.benchmarks

    @property
    def slow(self) -> tuple[str, ...]:
        """Benchmarks that go through lm-eval for each mixture."""
        return tuple(name for name in self.benchmarks if name not in self.functions)

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

    def gradients(self, w: ArrayLike) -> FloatArray:
        """Derivatives (B, K) of smooth scores with respect to the merge weights (K,)."""
        likelihoods = self.mixture.log_likelihoods(np.asarray(w)[None])[0]
        slopes = [self.functions[name].slopes(likelihoods) for name in self.benchmarks]
        return self.mixture.pull_back(w, np.stack(slopes))

    def _scores(self, W: FloatArray) -> FloatArray:
        likelihoods = self.mixture.log_likelihoods(W)
        slow = self.slow
        replayed = [self.replay.scores(row) for row in likelihoods] if slow else []
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
    say = report or (lambda line: None)
    require_merging()
    chosen = choose_device(device, config.scoring.device_map)
    components = open_components(config, report=say)

    from optuna_demix.merging import LiveModel
    from optuna_demix.scoring.digest import digest

    arena = _plain_arena(config, components, say)
    model = LiveModel(
        arena,
        device=chosen,
        dtype=config.scoring.dtype,
        trust_remote_code=config.scoring.trust_remote_code,
    )
    scorer, replay = _replay(config, model, say, partial=partial)
    counts = replay.token_counts()
    digests = components.digests(cache=arena.path.with_name(f"{arena.path.name}.digests.json"))
    plan = digest([scorer.plan_digest(), str(arena.dtype), code_versions()])

    def score(name: str) -> NDArray[np.float32]:
        model.merge([float(other == name) for other in model.names])
        return replay.token_log_probabilities()

    store = RowStore(config.run_path / "probabilities" / plan[:32], int(counts.sum()))
    rows = store.complete(digests, score, report=say)
    mixture = ProbabilityMixture([rows[name] for name in space.components], counts)
    samples = mixture.log_likelihoods(space.sample(_CHECKED, np.random.default_rng(0)))
    return ProbabilityProxy(mixture, replay, replay.functions(samples))


def _replay(
    config: StudyConfig, model: LiveModel, say: Callable[[str], None], *, partial: bool
) -> tuple[HarnessScorer, Replay]:
    """The tasks of a study, of those benchmarks that log-likelihoods are enough for."""
    while True:
        scorer = build_scorer(config, model, report=say)
        try:
            return scorer, scorer.replay()
        except NeedsModelError as error:
            capabilities = {
                name: [one for one in benchmarks if one.label not in error.benchmarks]
                for name, benchmarks in config.capabilities.items()
            }
            rest = {name: benchmarks for name, benchmarks in capabilities.items() if benchmarks}
            if not partial or not rest:
                raise
        config = config.model_copy(update={"capabilities": rest})


def _plain_arena(
    config: StudyConfig, components: ComponentSet, say: Callable[[str], None]
) -> Arena:
    """The study's arena; where its merge method changes the components, one that does not."""
    from optuna_demix.merging import Arena, find_method

    progress = announce(components, say)
    if merge_method(config).preparation == find_method("linear").preparation:
        return build_arena(config, components, progress=progress)
    return Arena.build(
        components,
        config.run_path / "probabilities" / "components.arena",
        dtype=config.merging.dtype,
        progress=progress,
    )
