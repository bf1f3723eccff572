"""Scores of proxies and references with one scorer, kept in one file for each model."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optuna_demix._files import write_whole
from optuna_demix.errors import ConfigError, DemixError

if TYPE_CHECKING:
    from pathlib import Path

    from optuna_demix.config import StudyConfig
    from optuna_demix.fidelity.references import Reference
    from optuna_demix.merging import Component
    from optuna_demix.mixture import MixtureSpace

Scores = dict[str, float]  # by benchmark, higher is better


@dataclass(frozen=True)
class OpenReference:
    """A reference whose files were checked.

    Attributes:
        name: What to call it in messages.
        component: Where its tensors lie.
        digest: Digest of its tensors and config.
    """

    name: str
    component: Component
    digest: str


class ScoreBook:
    """Scores models of one study, or remembers their scores.

    Everything that a score depends on is in its key: the weights' digests, the merge, the scoring
    plan and the kind of device. Work that was interrupted goes on where it stopped.

    Args:
        config: The study.
        space: Its mixtures.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:<i>``.
        report: Called with a line before each long step.

    Raises:
        DemixError: If a component, task or setting cannot be used.
    """

    def __init__(
        self,
        config: StudyConfig,
        space: MixtureSpace,
        *,
        device: str = "auto",
        report: Callable[[str], None] | None = None,
    ) -> None:
        from optuna_demix.study.evaluation import build_objective

        self._config = config
        self._folder = config.run_path / "fidelity" / "scores"
        self._objective, self._fingerprint = build_objective(
            config, space, device=device, proxy="merged", report=report
        )

    def proxy(self, weights: Mapping[str, float], *, name: str) -> Scores:
        """Scores of the proxy with these merge weights.

        Args:
            weights: By component; on the simplex or not.
            name: What to call it in messages.
        """
        facts = [
            self._fingerprint["merging"],
            sorted(self._fingerprint["components"].items()),
            sorted((component, float(w)) for component, w in weights.items()),
        ]

        def score() -> Scores:
            return self._objective.score(weights).benchmarks

        return self._remembered(["proxy", *facts], f"the proxy of {name}", score)

    def open(self, references: Sequence[Reference]) -> list[OpenReference]:
        """Check the files of references against the components, their weights unread.

        Raises:
            ComponentError: If the architecture, tensors or tokenizer of one are not the
                components'.
        """
        from optuna_demix.merging import ComponentSet
        from optuna_demix.study.components import base_of

        first = self._objective.space.components[0]
        path = self._config.component_path(first)
        labelled = {f"reference {reference.name}": reference.path for reference in references}
        opened = ComponentSet.open(
            {first: path, **labelled},
            base=base_of(self._config, {first: path}),
            config_of=first,
            trust_remote_code=self._config.scoring.trust_remote_code,
        )
        cache = self._folder.parent / "digests.json"
        cache.parent.mkdir(parents=True, exist_ok=True)
        digests = opened.digests(cache=cache)
        return [
            OpenReference(label, component, digests[label])
            for label, component in zip(labelled, opened.components[1:], strict=True)
        ]

    def reference(self, opened: OpenReference) -> Scores:
        """Scores of a reference model.

        Raises:
            ComponentError: If a tensor holds NaN or infinity, or cannot be read.
        """
        dtype = self._fingerprint["merging"]["dtype"]

        def score() -> Scores:
            from optuna_demix.merging import load_whole

            load_whole(opened.component, self._objective.model)  # type: ignore[arg-type]
            assert self._objective.scorer is not None
            return self._objective.scorer.score()

        return self._remembered(["model", dtype, opened.digest], opened.name, score)

    def _remembered(self, facts: Sequence[Any], name: str, score: Callable[[], Scores]) -> Scores:
        key = hashlib.sha256(
            json.dumps([self._fingerprint["scoring"], *facts], sort_keys=True).encode()
        ).hexdigest()
        file = self._folder / f"{key[:32]}.json"
        wanted = list(self._objective.benchmarks)
        known = _read(file, wanted)
        if known is not None:
            return known
        scores = score()
        for benchmark, value in scores.items():
            if not math.isfinite(value):
                raise DemixError(
                    f"{name}: benchmark {benchmark!r} gives no finite score; leave the benchmark "
                    "out of the study, or repair the model"
                )
        _write(file, {"model": name, "scores": scores})
        return scores


def _read(file: Path, wanted: Sequence[str]) -> Scores | None:
    """Scores in a file; None if it is missing, cut short or of other benchmarks."""
    try:
        scores = json.loads(file.read_text(encoding="utf-8"))["scores"]
        values = {name: float(scores[name]) for name in wanted}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return values if all(map(math.isfinite, values.values())) else None


def _write(file: Path, content: Mapping[str, Any]) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, json.dumps(content, indent=1))
    except OSError as error:
        raise ConfigError(
            f"{file}: cannot be written ({error.strerror}); check the path and the space"
        ) from None
