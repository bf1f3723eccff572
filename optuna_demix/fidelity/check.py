"""The whole check: references, proxies, their scores, and what they say about the proxies."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from optuna_demix.config.space import space_of
from optuna_demix.config.study import capabilities_of
from optuna_demix.errors import ConfigError, DemixError
from optuna_demix.fidelity.agreement import Estimate, agreements
from optuna_demix.fidelity.comparison import (
    BOTH,
    MERGED,
    PROBABILITIES,
    ProxyAgreement,
    compare,
    mean_of,
)
from optuna_demix.fidelity.references import Reference, find_references
from optuna_demix.fidelity.result import Fidelity, ScoredReference

if TYPE_CHECKING:
    from optuna_demix._typing import FloatArray
    from optuna_demix.config import StudyConfig
    from optuna_demix.fidelity.scores import Scores
    from optuna_demix.mixture import MixtureSpace

_SAME_SHARES = 1e-6
_FEW_IN_QUARTER = 20  # references: below, the best quarter holds fewer than five


def check_fidelity(
    config: StudyConfig,
    references: Path,
    *,
    repeats: Path | None = None,
    device: str = "auto",
    seed: int = 0,
    done: Callable[[int, int], object] | None = None,
    report: Callable[[str], None] | None = None,
) -> Fidelity:
    """Compare really trained models with both proxies of their mixtures.

    Every model is scored once, with the study's own tasks and scorer; its scores are kept under
    ``<run_dir>/fidelity`` and a second call goes on from them. Where the study has no probability
    mixture, a warning says why and merged proxies alone are judged.

    Args:
        config: The study.
        references: Folder of the references; see
            :func:`~optuna_demix.fidelity.references.find_references`.
        repeats: Folder of the same references trained with another seed, for the noise ceiling.
        device: Where models are scored.
        seed: Of the bootstrap.
        done: Called with (models scored, models in all).
        report: Called with a line before each long step.

    Raises:
        DemixError: If a reference, component or task cannot be used, or there are too few
            references to judge by.
    """
    space = space_of(config)
    found = find_references(references, space)
    again = _repeated(found, find_references(repeats, space)) if repeats is not None else None
    rows = _scored(config, space, found, again, device=device, done=done, report=report)
    gc.collect()  # model and scorer hold each other, and the next ones need their memory
    mixed, doubts = _from_probabilities(config, space, found, device=device, report=report)
    for row, scores in zip(rows, mixed, strict=True):
        row.proxies.update(scores)
    drift = drift_of(config)
    doubts += _warnings(found, drift, config)
    return judge(rows, capabilities_of(config), drift=drift, warnings=doubts, seed=seed)


def judge(
    rows: Sequence[ScoredReference],
    capabilities: dict[str, list[str]],
    *,
    drift: dict[str, float] | None = None,
    warnings: Sequence[str] = (),
    seed: int = 0,
) -> Fidelity:
    """Turn scores into figures.

    Args:
        rows: References and proxies, all with the same kinds of proxy and the same benchmarks.
        capabilities: Benchmarks of each capability.
        drift: Drift of each component, if known.
        warnings: Reasons for doubt found elsewhere.
        seed: Of the bootstrap.
    """
    names = [name for benchmarks in capabilities.values() for name in benchmarks]
    trained = _columns([row.trained for row in rows], names)
    proxies = {
        kind: _columns([row.proxies[kind] for row in rows], names) for kind in rows[0].proxies
    }
    mixed = proxies.get(PROBABILITIES)
    if mixed is not None:
        proxies[BOTH] = mean_of(proxies[MERGED], mixed)
    found = {
        kind: _agreement(kind, scores, trained, capabilities, seed)
        for kind, scores in proxies.items()
    }
    comparison = None
    if mixed is not None:
        shared = {name: capabilities[name] for name in found[PROBABILITIES].capabilities}
        comparison = compare(proxies, found, trained, capabilities=shared, seed=seed)
    ceiling = None
    again = [row.repeat for row in rows if row.repeat is not None]
    if len(again) == len(rows):
        _, ceilings, total = agreements(_columns(again, names), trained, capabilities, seed=seed)
        ceiling = {"macro": total, **ceilings}
    doubts = list(warnings)
    if len(rows) < _FEW_IN_QUARTER:
        doubts.append(
            f"the best quarter of {len(rows)} references holds {math.ceil(len(rows) / 4)} models: "
            "its correlation says little"
        )
    return Fidelity(
        references=list(rows),
        benchmark_names=capabilities,
        proxies=found,
        comparison=comparison,
        merged_only=[] if mixed is None else [name for name in names if name not in mixed],
        ceiling=ceiling,
        drift=drift,
        warnings=doubts,
    )


def _columns(rows: Sequence[Scores], names: Sequence[str]) -> dict[str, FloatArray]:
    """Scores (n,) of those of the benchmarks that the rows have."""
    return {name: np.array([row[name] for row in rows]) for name in names if name in rows[0]}


def _agreement(
    kind: str,
    scores: dict[str, FloatArray],
    trained: dict[str, FloatArray],
    capabilities: dict[str, list[str]],
    seed: int,
) -> ProxyAgreement:
    """Agreement on what a kind of proxy can score."""
    whole = {name: each for name, each in capabilities.items() if all(b in scores for b in each)}
    references = {name: trained[name] for name in scores}
    found = ProxyAgreement(*agreements(scores, references, whole, seed=seed))
    if kind != BOTH:
        return found
    # Its mean is that of the merged proxies by its making.
    return ProxyAgreement(
        {name: replace(one, recovery=Estimate(None)) for name, one in found.benchmarks.items()},
        {name: replace(one, recovery=Estimate(None)) for name, one in found.capabilities.items()},
        replace(found.macro, recovery=Estimate(None)),
    )


def _scored(
    config: StudyConfig,
    space: MixtureSpace,
    found: Sequence[Reference],
    again: Sequence[Reference] | None,
    *,
    device: str,
    done: Callable[[int, int], object] | None,
    report: Callable[[str], None] | None,
) -> list[ScoredReference]:
    """Scores of references, of their repeats and of their merged proxies."""
    from optuna_demix.fidelity.scores import ScoreBook

    book = ScoreBook(config, space, device=device, report=report)
    tick = _Ticker(len(found) * (2 if again is None else 3), done)
    # All files are checked before the first score is paid for.
    opened = book.open(found)
    opened_again = None if again is None else book.open(again)
    rows = []
    for i, reference in enumerate(found):
        trained = tick(book.reference(opened[i]))
        merged = tick(book.proxy(reference.weights, name=f"reference {reference.name}"))
        repeat = None if opened_again is None else tick(book.reference(opened_again[i]))
        rows.append(
            ScoredReference(
                reference.name,
                reference.shares,
                reference.weights,
                {MERGED: merged},
                trained,
                repeat,
            )
        )
    return rows


def _from_probabilities(
    config: StudyConfig,
    space: MixtureSpace,
    found: Sequence[Reference],
    *,
    device: str,
    report: Callable[[str], None] | None,
) -> tuple[list[dict[str, Scores]], list[str]]:
    """Scores of the probability mixture of each reference, and what is missing of them."""
    from optuna_demix.study.probabilities import build_probabilities

    try:
        proxy = build_probabilities(config, space, device=device, partial=True, report=report)
    except DemixError as error:
        return [{} for _ in found], [f"merged proxies alone are judged: {error}"]
    W = np.array([[reference.weights[name] for name in space.components] for reference in found])
    values = dict(zip(proxy.benchmarks, proxy.scores(W).T, strict=True))  # each (n,)
    finite = {name: scores for name, scores in values.items() if np.isfinite(scores).all()}
    doubts = [
        f"benchmark {name!r} has no finite score under the probability mixture of reference "
        f"{found[int(np.argmin(np.isfinite(scores)))].name}: merged proxies alone are judged by it"
        for name, scores in values.items()
        if name not in finite
    ]
    if not finite:
        return [{} for _ in found], doubts
    return [
        {PROBABILITIES: {name: float(scores[i]) for name, scores in finite.items()}}
        for i in range(len(found))
    ], doubts


class _Ticker:
    """Counts the models that have their scores."""

    def __init__(self, total: int, done: Callable[[int, int], object] | None) -> None:
        self._count, self._total, self._done = 0, total, done

    def __call__(self, scores: Scores) -> Scores:
        self._count += 1
        if self._done is not None:
            self._done(self._count, self._total)
        return scores


def _repeated(first: Sequence[Reference], second: Sequence[Reference]) -> list[Reference]:
    """The repeat of each reference, by name."""
    by_name = {reference.name: reference for reference in second}
    for reference in first:
        other = by_name.get(reference.name)
        if other is None:
            raise ConfigError(
                f"repeats: there is no {reference.name!r}; train the same references again with "
                "another seed"
            )
        off = max(abs(share - other.shares[name]) for name, share in reference.shares.items())
        if off > _SAME_SHARES:
            raise ConfigError(
                f"{other.path}: was trained on another mixture than {reference.path}; repeats "
                "must be the same references with another seed"
            )
    return [by_name[reference.name] for reference in first]


def drift_of(config: StudyConfig) -> dict[str, float] | None:
    """Drift of each component from the base (paper, Table 12); ``None`` without a base."""
    from optuna_demix.merging import ComponentSet, drift

    if not (config.base_path / "config.json").is_file():
        return None
    paths = {name: config.component_path(name) for name in config.components}
    trust = config.scoring.trust_remote_code
    chosen = next(iter(paths))  # of no consequence here
    return drift(
        ComponentSet.open(paths, base=config.base_path, config_of=chosen, trust_remote_code=trust)
    )


def _warnings(
    references: Sequence[Reference], drift: dict[str, float] | None, config: StudyConfig
) -> list[str]:
    from optuna_demix.merging.checkpoints.drift import DRIFT_BENDS

    lines = []
    budgets = {reference.tokens for reference in references} - {None}
    if len(budgets) > 1:
        lines.append(
            "references were trained on different numbers of tokens: "
            + ", ".join(f"{tokens:,}" for tokens in sorted(budgets))  # type: ignore[type-var]
        )
    if len({reference.base for reference in references} - {None}) > 1:
        lines.append("references were trained from different bases")
    if drift is None:
        lines.append(f"no base in {config.base_path}: drift is not measured")
    elif max(drift.values()) >= DRIFT_BENDS:
        worst = max(drift, key=lambda name: drift[name])
        lines.append(
            f"component {worst!r} has drifted {drift[worst]:.3f} from the base: from "
            f"{DRIFT_BENDS} on proxies score below trained models, more so the farther; trust "
            "their ranks only as far as the table above"
        )
    return lines
