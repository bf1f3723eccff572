"""``Fidelity``: what references say about proxies, as object, table and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from optuna_demix._text_table import ruled_table, text_table
from optuna_demix.fidelity.comparison import MERGED, PROBABILITIES

if TYPE_CHECKING:
    from optuna_demix._typing import FloatArray
    from optuna_demix.fidelity.agreement import Agreement, Estimate
    from optuna_demix.fidelity.comparison import Comparison, Preference, ProxyAgreement
    from optuna_demix.fidelity.scores import Scores


@dataclass(frozen=True)
class ScoredReference:
    """A reference and the proxies of its mixture.

    Attributes:
        name: Name of the reference's folder.
        shares: Data shares it was trained on.
        weights: Merge weights of its proxies.
        proxies: Scores by kind of proxy, ``"merged"`` and, where it could be built,
            ``"probabilities"``; of the latter only the benchmarks that it can score.
        trained: Scores of the reference.
        repeat: Scores of the reference trained again with another seed, if there is one.
    """

    name: str
    shares: dict[str, float]
    weights: dict[str, float]
    proxies: dict[str, Scores]
    trained: Scores
    repeat: Scores | None = None


@dataclass(frozen=True)
class Fidelity:
    """What references say about proxies.

    Attributes:
        references: The models compared, in order.
        benchmark_names: Benchmarks of each capability.
        proxies: Agreement by kind of proxy: ``"merged"``, and with a probability mixture
            ``"probabilities"`` and ``"both"``, the mean of the two in standard deviations.
        comparison: Which of the first two to trust; None without a probability mixture.
        merged_only: Benchmarks that the probability mixture cannot score; empty without one.
        ceiling: Agreement of a second training of the references with the first, by capability
            and as ``macro``: no proxy can be expected to do better. None without repeats.
        drift: Distance of each component from the base, ``|T - B| / (|T| + |B|)``; None without
            a base.
        warnings: Reasons for doubt, a line each.
    """

    references: list[ScoredReference]
    benchmark_names: dict[str, list[str]]
    proxies: dict[str, ProxyAgreement]
    comparison: Comparison | None
    merged_only: list[str]
    ceiling: dict[str, Agreement] | None
    drift: dict[str, float] | None
    warnings: list[str]

    def to_json(self) -> str:
        """All of it as JSON, undefined figures as null."""
        return json.dumps(asdict(self), indent=1, allow_nan=False)

    def capability_scores(
        self, capability: str, proxy: str = MERGED
    ) -> tuple[FloatArray, FloatArray]:
        """Scores of the references (n,) and of their proxies (n,): means over benchmarks.

        Args:
            capability: Which capability.
            proxy: ``"merged"`` or ``"probabilities"``.
        """
        names = self.benchmark_names[capability]
        trained = [np.mean([row.trained[name] for name in names]) for row in self.references]
        found = [np.mean([row.proxies[proxy][name] for name in names]) for row in self.references]
        return np.array(trained), np.array(found)

    def __str__(self) -> str:
        """Tables of capabilities and benchmarks, which proxy to trust, drift and warnings."""
        text = [f"{len(self.references)} references, 95 % intervals over them", ""]
        text += self._agreement_table()
        if self.comparison is not None:
            text += ["", "Which proxy to trust: Spearman of probabilities, less that of merged"]
            text += [self._trust_table(self.comparison)]
        if self.merged_only:
            text += [f"merged only, nothing else can score them: {', '.join(self.merged_only)}"]
            if len(self.proxies[PROBABILITIES].capabilities) < len(self.benchmark_names):
                text += ["macro to trust, and of the other proxies: capabilities that both score"]
        if self.drift is not None:
            shown = ", ".join(f"{name} {value:.3f}" for name, value in self.drift.items())
            text += ["", f"drift from the base: {shown}"]
        text += [f"warning: {line}" for line in self.warnings]
        return "\n".join(text)

    def _agreement_table(self) -> list[str]:
        several = len(self.proxies) > 1
        width = max(
            map(len, self.proxies)
        )  # padded: a table aligns all but its first column right
        header = ["", *(["proxy".ljust(width)] if several else [])]
        header += ["Spearman", "best quarter", "Kendall", "recovery"]
        if self.ceiling is not None:
            header += ["ceiling", "ceiling best quarter"]
        lines = [header]
        for name, by_proxy, limit in self._rows():
            for number, (proxy, found) in enumerate(by_proxy.items()):
                lines.append(
                    [name if number == 0 else "", *([proxy.ljust(width)] if several else [])]
                )
                lines[-1] += _cells(found)
                if self.ceiling is not None:
                    lines[-1] += _ceiling_cells(limit if number == 0 else None)
        return text_table(lines)

    def _rows(self) -> Iterator[tuple[str, dict[str, Agreement], Agreement | None]]:
        """Name, agreement of each proxy that has one, and ceiling of each row of the table."""
        ceiling = self.ceiling or {}
        proxies = {name: p for name, p in self.proxies.items() if p.capabilities}
        yield "macro", {name: p.macro for name, p in proxies.items()}, ceiling.get("macro")
        for capability in self.benchmark_names:
            found = {
                name: p.capabilities[capability]
                for name, p in proxies.items()
                if capability in p.capabilities
            }
            yield capability, found, ceiling.get(capability)
        for names in self.benchmark_names.values():
            for benchmark in names:
                found = {
                    name: p.benchmarks[benchmark]
                    for name, p in self.proxies.items()
                    if benchmark in p.benchmarks
                }
                yield f"  {benchmark}", found, None

    def _trust_table(self, comparison: Comparison) -> str:
        rows = [("macro", comparison.macro), *comparison.capabilities.items()]
        rows += [(f"  {name}", found) for name, found in comparison.benchmarks.items()]
        header = ["", "merged", "probabilities", "difference", "trust"]
        return ruled_table(header, [[name, *_trust_cells(found)] for name, found in rows])


def _cells(found: Agreement) -> list[str]:
    return [
        _with_interval(found.spearman),
        _with_interval(found.top_quarter),
        _number(found.kendall.value),
        _number(found.recovery.value),
    ]


def _ceiling_cells(found: Agreement | None) -> list[str]:
    """Cells of the two ceilings; empty for a benchmark, which has none."""
    if found is None:
        return ["", ""]
    return [_number(found.spearman.value), _number(found.top_quarter.value)]


def _trust_cells(found: Preference) -> list[str]:
    return [
        _number(found.merged),
        _number(found.probabilities),
        _with_interval(found.difference, sign="+"),
        found.trust,
    ]


def _with_interval(estimate: Estimate, *, sign: str = "") -> str:
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return _number(estimate.value, sign=sign)
    return f"{estimate.value:{sign}.3f} [{estimate.low:{sign}.2f}, {estimate.high:{sign}.2f}]"


def _number(value: float | None, *, sign: str = "") -> str:
    return "n/a" if value is None else f"{value:{sign}.3f}"
