"""What a space is: a description that equal spaces share, however they were written."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from optuna_demix.mixture._specification import Specification
    from optuna_demix.mixture.sums import Group, LinearConstraint

# Significant digits in which equal numbers agree.
_DIGITS = 12


def describe(given: Specification) -> dict[str, Any]:
    """Describe a space by JSON-able values, rounded to 12 significant digits."""
    capped = zip(given.datasets, given.usage.caps, strict=True)
    described = {
        "components": list(given.components),
        "datasets": list(given.datasets),
        "prior": _rounded(given.prior),
        "lower": _rounded(given.lower),
        "upper": _rounded(given.upper),
        "composition": _rounded(given.composition),
        "caps": {dataset: _rounded(cap) for dataset, cap in capped if np.isfinite(cap)},
        "groups": [
            _describe_group(group) for group in sorted(given.groups, key=lambda group: group.name)
        ],
        "name": given.name,
    }
    if given.linear:
        linear = [_describe_linear(each) for each in given.linear]
        described["constraints"] = sorted(linear, key=lambda each: json.dumps(each))
    if given.topics:
        described["topics"] = {name: list(sources) for name, sources in given.topics}
    if given.run is not None:
        described["phases"] = [
            {
                "name": phase.name,
                "share": _rounded(phase.share),
                "fixed": phase.fixed,
                "mixture": phase.mixture.fingerprint(),
            }
            for phase in given.run.phases
        ]
    if given.min_weight > 0:
        described["min_weight"] = _rounded(given.min_weight)
    return described


def _describe_group(group: Group) -> dict[str, Any]:
    return {
        "name": group.name,
        "members": sorted(group.members),
        "lower": _rounded(group.lower),
        "upper": _rounded(group.upper),
        "of": group.of,
    }


def _describe_linear(constraint: LinearConstraint) -> dict[str, Any]:
    kept = {name: _rounded(value) for name, value in constraint.coefficients.items() if value}
    ends = {
        side: _rounded(value)
        for side, value in (("lower", constraint.lower), ("upper", constraint.upper))
        if value is not None
    }
    return {"coefficients": dict(sorted(kept.items())), **ends, "of": constraint.of}


def _rounded(values: Any) -> Any:
    """Round to 12 significant digits, nested lists for arrays; -0.0 becomes 0.0."""
    if np.ndim(values):
        return [_rounded(value) for value in values]
    return float(f"{float(values):.{_DIGITS}g}") + 0.0
