"""The whole check: references, proxies, their scores, and what they say about the proxy."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from optuna_demix._text_table import text_table
from optuna_demix.config.space import space_of
from optuna_demix.config.study import capabilities_of
from optuna_demix.errors import ConfigError
from optuna_demix.fidelity.agreement import Agreement, Estimate, agreements
from optuna_demix.fidelity.references import Reference, find_references

if TYPE_CHECKING:
    from optuna_demix._typing import FloatArray
    from optuna_demix.config import StudyConfig
    from optuna_demix.fidelity.scores import Scores

DRIFT_BENDS = 0.07
"""Drift from which on proxies fall behind: at 0.069 the merged models of DeMix kept 0.81 of the
code score of really trained ones, at 0.101 they kept 0.75 (arXiv 2602.00747, Table 12)."""

_SAME_SHARES = 1e-6
_FEW_IN_QUARTER = 20  # references: below, the best quarter holds fewer than five


@dataclass(frozen=True)
class ScoredReference:
    """A reference and the proxy of its mixture.

    Attributes:
        name: Name of the reference's folder.
        shares: Data shares it was trained on.
        weights: Merge weights of its proxy.
        proxy: Scores of the proxy by benchmark, higher is better.
        trained: Scores of the reference.
        repeat: Scores of the reference trained again with another seed, if there is one.
    """

    name: str
    shares: dict[str, float]
    weights: dict[str, float]
    proxy: dict[str, float]
    trained: dict[str, float]
    repeat: dict[str, float] | None = None


@dataclass(frozen=True)
class Fidelity:
    """What references say about proxies.

    Attributes:
        references: The models compared, in order.
        benchmark_names: Benchmarks of each capability.
        benchmarks: Agreement by benchmark.
        capabilities: Agreement by capability, the mean of its benchmarks.
        macro: Means over the capabilities.
        ceiling: Agreement of a second training of the references with the first, by capability
            and as ``macro``: no proxy can be expected to do better. None without repeats.
        drift: Distance of each component from the base, ``|T - B| / (|T| + |B|)``; None without
            a base.
        warnings: Reasons for doubt, a line each.
    """

    references: list[ScoredReference]
    benchmark_names: dict[str, list[str]]
    benchmarks: dict[str, Agreement]
    capabilities: dict[str, Agreement]
    macro: Agreement
    ceiling: dict[str, Agreement] | None
    drift: dict[str, float] | None
    warnings: list[str]

    def to_json(self) -> str:
        """All of it as JSON, undefined figures as null."""
        return json.dumps(asdict(self), indent=1, allow_nan=False)

    def capability_scores(self, capability: str) -> tuple[FloatArray, ...]:
        """Scores of the references (n,) and of their proxies (n,): means over benchmarks."""
        names = self.benchmark_names[capability]
        trained = [np.mean([row.trained[name] for name in names]) for row in self.references]
        proxy = [np.mean([row.proxy[name] for name in names]) for row in self.references]
        return np.array(trained), np.array(proxy)

    def __str__(self) -> str:
        """A table of capabilities and benchmarks, drift and warnings."""
        ceiling = self.ceiling or {}
        rows = [("macro", self.macro, ceiling.get("macro"))]
        rows += [(name, found, ceiling.get(name)) for name, found in self.capabilities.items()]
        rows += [(f"  {name}", found, None) for name, found in self.benchmarks.items()]
        header = ["", "Spearman", "best quarter", "Kendall", "recovery"]
        if self.ceiling is not None:
            header += ["ceiling", "ceiling best quarter"]
        lines = [
            [
                name,
                _with_interval(found.spearman),
                _with_interval(found.top_quarter),
                _number(found.kendall.value),
                _number(found.recovery.value),
                *(_ceiling_cells(limit) if self.ceiling is not None else []),
            ]
            for name, found, limit in rows
        ]
        text = [f"{len(self.references)} references, 95 % intervals over them", ""]
        text += text_table([header, *lines])
        if self.drift is not None:
            shown = ", ".join(f"{name} {value:.3f}" for name, value in self.drift.items())
            text += ["", f"drift from the base: {shown}"]
        text += [f"warning: {line}" for line in self.warnings]
        return "\n".join(text)


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
    """Compare really trained models with the proxies of their mixtures.

    Every model is scored once, with the study's own tasks and scorer; its scores are kept under
    ``<run_dir>/fidelity`` and a second call goes on from them.

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
    from optuna_demix.fidelity.scores import ScoreBook

    space = space_of(config)
    found = find_references(references, space)
    again = _repeated(found, find_references(repeats, space)) if repeats is not None else None
    book = ScoreBook(config, space, device=device, report=report)
    tick = _Ticker(len(found) * (2 if again is None else 3), done)
    # All files are checked before the first score is paid for.
    opened = [book.open(reference) for reference in found]
    opened_again = None if again is None else [book.open(reference) for reference in again]
    rows = []
    for i, reference in enumerate(found):
        trained = tick(book.reference(opened[i]))
        proxy = tick(book.proxy(reference.weights, name=f"reference {reference.name}"))
        repeat = None if opened_again is None else tick(book.reference(opened_again[i]))
        rows.append(
            ScoredReference(
                reference.name, reference.shares, reference.weights, proxy, trained, repeat
            )
        )
    drift = drift_of(config)
    warnings = _warnings(found, drift, config)
    return judge(rows, capabilities_of(config), drift=drift, warnings=warnings, seed=seed)


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
        rows: References and proxies, all with the same benchmarks.
        capabilities: Benchmarks of each capability.
        drift: Drift of each component, if known.
        warnings: Reasons for doubt found elsewhere.
        seed: Of the bootstrap.
    """
    names = [name for benchmarks in capabilities.values() for name in benchmarks]

    def column(which: str) -> dict[str, FloatArray]:
        return {name: np.array([getattr(row, which)[name] for row in rows]) for name in names}

    trained = column("trained")
    by_benchmark, by_capability, macro = agreements(
        column("proxy"), trained, capabilities, seed=seed
    )
    ceiling = None
    if all(row.repeat is not None for row in rows):
        _, ceilings, total = agreements(column("repeat"), trained, capabilities, seed=seed)
        ceiling = {"macro": total, **ceilings}
    doubts = list(warnings)
    if len(rows) < _FEW_IN_QUARTER:
        doubts.append(
            f"the best quarter of {len(rows)} references holds {math.ceil(len(rows) / 4)} models: "
            "its correlation says little"
        )
    return Fidelity(
        list(rows), capabilities, by_benchmark, by_capability, macro, ceiling, drift, doubts
    )


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


def _ceiling_cells(found: Agreement | None) -> list[str]:
    """Cells of the two ceilings; empty for a benchmark, which has none."""
    if found is None:
        return ["", ""]
    return [_number(found.spearman.value), _number(found.top_quarter.value)]


def _with_interval(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return _number(estimate.value)
    return f"{_number(estimate.value)} [{estimate.low:.2f}, {estimate.high:.2f}]"


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"
