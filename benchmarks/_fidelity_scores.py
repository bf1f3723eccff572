"""Scores of the models behind the fidelity benchmarks, and what they say about proxies.

Scores are arrays (n,) by benchmark, higher is better; every model is scored once and remembered.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from _fidelity_models import WATCHED, Workshop
from numpy.typing import NDArray

from optuna_demix.config import StudyConfig
from optuna_demix.config.space import space_of
from optuna_demix.config.study import capabilities_of
from optuna_demix.fidelity.agreement import (
    Agreement,
    Estimate,
    agreements,
    best_quarter,
    spearman_rows,
)
from optuna_demix.fidelity.references import Reference
from optuna_demix.fidelity.scores import ScoreBook
from optuna_demix.study.probabilities import ProbabilityProxy, build_probabilities
from optuna_demix.study.proxies import shares_of

FloatArray = NDArray[np.float64]
Scores = dict[str, FloatArray]  # benchmark: (n,)
Capabilities = Mapping[str, Sequence[str]]  # capability: its benchmarks

RIDGE = 1.0  # of a correction's slopes, in units of the standardized shares


class Scorer:
    """Scores proxies of one study, and any trained model of its architecture.

    Args:
        study: The study, whose components are trained.
    """

    def __init__(self, study: StudyConfig) -> None:  # noqa: D107
        self.space = space_of(study)
        named = capabilities_of(study)
        self.watched = named.pop(WATCHED, [])
        self.capabilities = named
        self._study = study

    @cached_property
    def _book(self) -> ScoreBook:
        return ScoreBook(self._study, self.space, device="cpu")

    @cached_property
    def probability_proxy(self) -> ProbabilityProxy:
        """The probability mixture of the study's components."""
        return build_probabilities(self._study, self.space, device="cpu")

    def probabilities(self, weights: FloatArray, exponent: float | None = None) -> Scores:
        """Scores of the probability mixtures with weights (n, K).

        Args:
            weights: The weights.
            exponent: Instead of the default one.
        """
        proxy = self.probability_proxy
        if exponent is not None:
            proxy = replace(proxy, exponent=exponent)
        return dict(zip(proxy.benchmarks, proxy.scores(weights).T, strict=True))

    @cached_property
    def auto_shares(self) -> dict[str, float]:
        """How much of each benchmark's score is the probability mixture's with ``proxy: auto``."""
        return shares_of(self._study, self.probability_proxy)

    def auto(self, weights: FloatArray) -> Scores:
        """Scores as ``proxy: auto`` has them; nothing is merged that does not count."""
        probabilities = self.probabilities(weights)
        counted = [b for names in self.capabilities.values() for b in names]
        if all(self.auto_shares.get(name) == 1.0 for name in counted):
            return {name: probabilities[name] for name in counted}
        return mixed(self.proxies(weights), probabilities, self.auto_shares)

    def proxies(self, weights: FloatArray) -> Scores:
        """Scores of the proxies with merge weights (n, K)."""
        names = self.space.components
        return _stacked(
            self._book.proxy(dict(zip(names, row.tolist(), strict=True)), name=f"mixture {i}")
            for i, row in enumerate(weights)
        )

    def models(self, folders: Sequence[Path]) -> Scores:
        """Scores of the models in some folders."""
        return _stacked(
            self._book.reference(*self._book.open([Reference(folder.name, folder, {}, {})]))
            for folder in folders
        )


def scored_references(
    scorer: Scorer, shop: Workshop, tokens: int, seeds: Sequence[int], shares: FloatArray
) -> list[Scores]:
    """Scores of references trained on data shares (n, D), for each training seed."""
    return [
        scorer.models(shop.references(f"references-{seed}", tokens, seed, shares))
        for seed in seeds
    ]


def write_scores(file: Path, sets: Mapping[str, Scores]) -> None:
    """Write scores of n mixtures by several kinds of model, a row for each."""
    benchmarks = list(next(iter(sets.values())))
    rows = [
        [name, i, *(f"{scores[b][i]:.6f}" for b in benchmarks)]
        for name, scores in sets.items()
        for i in range(len(scores[benchmarks[0]]))
    ]
    _write_csv(file, ["model", "mixture", *benchmarks], rows)


def write_mixtures(file: Path, mixtures: FloatArray, names: Sequence[str]) -> None:
    """Write mixtures (n, k) of what the names say."""
    rows = [[i, *(f"{share:.6f}" for share in row)] for i, row in enumerate(mixtures)]
    _write_csv(file, ["mixture", *names], rows)


def _write_csv(file: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, lineterminator="\n").writerows([header, *rows])


def _stacked(rows: Iterable[Mapping[str, float]]) -> Scores:
    each = list(rows)
    return {name: np.array([row[name] for row in each]) for name in each[0]}


def capability_scores(scores: Scores, capabilities: Capabilities) -> FloatArray:
    """Scores (n, c) of capabilities: means over their benchmarks."""
    return np.stack(
        [np.mean([scores[name] for name in names], axis=0) for names in capabilities.values()],
        axis=1,
    )


def mixed(merged: Scores, probabilities: Scores, shares: Mapping[str, float]) -> Scores:
    """Each benchmark by probabilities as far as their share goes, by merged models else."""
    return {
        name: shares.get(name, 0.0) * probabilities.get(name, 0.0)
        + (1.0 - shares.get(name, 0.0)) * merged[name]
        for name in merged
    }


# How well rankings agree ---------------------------------------------------------------------


def row_of(
    proxies: Scores, references: Sequence[Scores], capabilities: Capabilities
) -> dict[str, Any]:
    """Agreement with the references, means over their training seeds, as a row of a table."""
    by_benchmark, by_capability, macro = agreements(proxies, references, capabilities)
    found = _row(by_capability, macro)
    found["rho_benchmark"] = {
        name: _rounded(agreement.spearman.value) for name, agreement in by_benchmark.items()
    }
    return found


def gain_of(
    proxies: Scores,
    others: Scores,
    references: Sequence[Scores],
    capabilities: Capabilities,
    resamples: int = 1000,
) -> list[float]:
    """How much higher the macro Spearman correlation of proxies is than that of others.

    Returns:
        The difference, and the ends of its 95 % interval over resampled references.
    """
    each = [capability_scores(scores, capabilities) for scores in (proxies, others)]
    trained = [capability_scores(scores, capabilities) for scores in references]
    n = len(trained[0])
    rng = np.random.default_rng([29, n])
    picks = np.concatenate([np.arange(n)[None], rng.integers(n, size=(resamples, n))])
    rho = [
        np.mean([_spearman(P[picks], R[picks]) for R in trained], axis=0).mean(axis=1)
        for P in each
    ]
    gain = rho[0] - rho[1]
    low, high = np.quantile(gain[1:], [0.025, 0.975])
    return [round(float(gain[0]), 4), round(float(low), 4), round(float(high), 4)]


def _spearman(P: FloatArray, R: FloatArray) -> FloatArray:
    """Correlation (B, c) of samples (B, n, c)."""
    return np.stack([spearman_rows(P[..., c], R[..., c]) for c in range(P.shape[2])], axis=1)


def ceiling_of(references: Sequence[Scores], capabilities: Capabilities) -> dict[str, Any] | None:
    """Agreement of one training seed with another, means over both directions."""
    if len(references) < 2:
        return None
    first, second = references[:2]
    there = row_of(first, [second], capabilities)
    back = row_of(second, [first], capabilities)
    return {
        "rho_macro": _mean(there["rho"]["macro"], back["rho"]["macro"]),
        "rho_top_quarter": _mean(
            there["rho_top_quarter"]["macro"], back["rho_top_quarter"]["macro"]
        ),
        "rho": {c: _mean(there["rho"][c], back["rho"][c]) for c in there["rho"]},
        "ci95": there["ci95"],
    }


def _row(by_capability: Mapping[str, Agreement], macro: Agreement) -> dict[str, Any]:
    def values(measure: str) -> dict[str, float | None]:
        of = {**by_capability, "macro": macro}
        return {name: _rounded(getattr(found, measure).value) for name, found in of.items()}

    return {
        "rho": values("spearman"),
        "rho_top_quarter": values("top_quarter"),
        "recovery": values("recovery"),
        "ci95": _interval(macro.spearman),
        "ci95_top_quarter": _interval(macro.top_quarter),
        "ci95_recovery": _interval(macro.recovery),
    }


def _interval(estimate: Estimate) -> list[float | None]:
    return [_rounded(estimate.low), _rounded(estimate.high)]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _mean(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else round((a + b) / 2, 4)


def tokens_at(rho: float, totals: Sequence[float], rhos: Sequence[float]) -> float | None:
    """Tokens at which trained proxies reach a correlation, between two budgets on a log scale.

    Args:
        rho: The correlation.
        totals: Tokens of each budget, ascending.
        rhos: What each reached.

    Returns:
        The tokens of the first crossing; None if no budget reaches it, or the least already does.
    """
    if rhos[0] >= rho:
        return None
    for i in range(1, len(rhos)):
        if rhos[i] >= rho:
            part = (rho - rhos[i - 1]) / (rhos[i] - rhos[i - 1])
            low, high = np.log(totals[i - 1]), np.log(totals[i])
            return float(np.exp(low + part * (high - low)))
    return None


# Corrections from a few references -----------------------------------------------------------

Corrector = Callable[[Scores, FloatArray, Scores, NDArray[np.intp]], Scores]
"""(proxies, features (n, d), references, which of them are known) -> corrected proxies."""


def as_they_are(
    proxies: Scores, features: FloatArray, references: Scores, known: NDArray[np.intp]
) -> Scores:
    """No correction."""
    return proxies


def scaled(
    proxies: Scores, features: FloatArray, references: Scores, known: NDArray[np.intp]
) -> Scores:
    """A line for each benchmark, reference on proxy: its slope changes a capability's balance."""
    result = {}
    for name, score in proxies.items():
        slope, offset = np.polyfit(score[known], references[name][known], 1)
        result[name] = offset + slope * score
    return result


def control_variate(
    proxies: Scores, features: FloatArray, references: Scores, known: NDArray[np.intp]
) -> Scores:
    """Proxy plus what a ridge on the features says of the difference to the reference."""
    return {
        name: score + _ridge(features, (references[name] - score)[known], known)
        for name, score in proxies.items()
    }


def scaled_control_variate(
    proxies: Scores, features: FloatArray, references: Scores, known: NDArray[np.intp]
) -> Scores:
    """The line, then the ridge on what it leaves."""
    line = scaled(proxies, features, references, known)
    return control_variate(line, features, references, known)


def references_alone(
    proxies: Scores, features: FloatArray, references: Scores, known: NDArray[np.intp]
) -> Scores:
    """The ridge on the known references, without any proxy: what they say by themselves."""
    return {name: _ridge(features, references[name][known], known) for name in proxies}


def _ridge(features: FloatArray, y: FloatArray, known: NDArray[np.intp]) -> FloatArray:
    """Predictions (n,) of a ridge regression fitted to the known rows."""
    X = (features - features.mean(axis=0)) / np.maximum(features.std(axis=0), 1e-12)
    A = X[known] - X[known].mean(axis=0)
    gram = A.T @ A + RIDGE * np.eye(X.shape[1])
    slopes = np.linalg.solve(gram, A.T @ (y - y.mean()))
    return np.asarray(y.mean() + (X - X[known].mean(axis=0)) @ slopes)


CORRECTIONS: Mapping[str, Corrector] = {
    "none": as_they_are,
    "line per benchmark": scaled,
    "control variate": control_variate,
    "line, then control variate": scaled_control_variate,
    "references alone": references_alone,
}


def corrections(
    proxies: Scores,
    features: FloatArray,
    references: Sequence[Scores],
    capabilities: Capabilities,
    *,
    n_known: int,
    draws: int,
) -> list[dict[str, Any]]:
    """What corrections from a few references gain on the others, means over draws of the few.

    Args:
        proxies: Scores (n,) of the proxies.
        features: What a mixture is described by, (n, d).
        references: Scores of the references by training seed; a draw learns from and is judged
            by the same seed, on references it has not seen.
        capabilities: Benchmarks of each capability.
        n_known: Number of references learned from.
        draws: Number of draws.
    """
    gathered: dict[str, list[list[float]]] = {name: [] for name in CORRECTIONS}
    n = len(features)
    for draw in range(draws):
        order = np.random.default_rng([17, n_known, draw]).permutation(n)
        known, rest = np.sort(order[:n_known]), np.sort(order[n_known:])
        trained = references[draw % len(references)]
        for name, correct in CORRECTIONS.items():
            found = correct(proxies, features, trained, known)
            gathered[name].append(_judged(found, trained, capabilities, rest))
    base = np.array(gathered["none"])
    rows = []
    for name, values in gathered.items():
        array = np.array(values)  # (draws, 2)
        gain = array - base
        error = gain.std(axis=0, ddof=1) / np.sqrt(draws)
        rows.append(
            {
                "correction": name,
                "n_known": n_known,
                "rho_macro": round(float(array[:, 0].mean()), 4),
                "rho_top_quarter": round(float(array[:, 1].mean()), 4),
                "gain_top_quarter": round(float(gain[:, 1].mean()), 4),
                "gain_top_quarter_se": round(float(error[1]), 4),
            }
        )
    return rows


def _judged(
    found: Scores, trained: Scores, capabilities: Capabilities, rest: NDArray[np.intp]
) -> list[float]:
    """Macro correlation of some rows, over all of them and in their best quarter."""
    P = capability_scores(found, capabilities)[rest]
    R = capability_scores(trained, capabilities)[rest]
    whole, top = [], []
    for p, r in zip(P.T, R.T, strict=True):
        best = best_quarter(r)
        whole.append(spearman_rows(p[None], r[None])[0])
        top.append(spearman_rows(p[None, best], r[None, best])[0])
    return [float(np.mean(whole)), float(np.mean(top))]
