"""What a study searches and scores, and the mark that says so."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from typing import TYPE_CHECKING, Any

from optuna_demix.attributes import FINGERPRINT_ATTR
from optuna_demix.config.study import objective_names
from optuna_demix.errors import StudyError

if TYPE_CHECKING:
    from optuna.study import Study

    from optuna_demix.config import StudyConfig

SCORING_VERSION = 1
"""Raised whenever a change of our code changes a score: then no study can go on with it.

``tests/scoring/golden_scores.py`` keeps the scores that belong to it.
"""

_LIBRARIES = ("lm-eval", "torch", "transformers", "tokenizers")


def code_versions() -> dict[str, str | int]:
    """The version of our scoring, and those of the libraries it calls."""
    versions: dict[str, str | int] = {"scoring": SCORING_VERSION}
    for library in _LIBRARIES:
        try:
            # Builds for different devices are one version: 2.9.0+cpu, 2.9.0+cu128.
            versions[library] = metadata.version(library).partition("+")[0]
        except metadata.PackageNotFoundError:
            continue
    return versions


def differences(study: Study, fingerprint: Mapping[str, Any]) -> list[str]:
    """What differs between a study's fingerprint and another one, one line each."""
    stored = study.user_attrs.get(FINGERPRINT_ATTR)
    if stored is None:
        return []
    theirs, ours = _flatten(stored), _flatten(fingerprint)
    return [
        f"{key} (study: {theirs.get(key, 'absent')}, here: {ours.get(key, 'absent')})"
        for key in sorted(theirs.keys() | ours.keys())
        if theirs.get(key) != ours.get(key)
    ]


def claim(
    study: Study,
    config: StudyConfig,
    fingerprint: Mapping[str, Any],
    layout: list[dict[str, float]],
) -> None:
    """Mark a study with what it searches, or check that it is marked so.

    Metric names and the fingerprint are written once, by the first worker.

    Raises:
        StudyError: If the study was made for other components, tasks or constraints.
    """
    from optuna_demix.attributes import OBJECTIVES_ATTR

    if FINGERPRINT_ATTR not in study.user_attrs:
        study.set_metric_names(objective_names(config))
        study.set_user_attr(OBJECTIVES_ATTR, layout)
        study.set_user_attr(FINGERPRINT_ATTR, dict(fingerprint))
    # Read again: of two first workers at the same moment, one must find the other's mark.
    changed = differences(study, fingerprint)
    if changed:
        more = f" and {len(changed) - 4} more" if len(changed) > 4 else ""
        raise StudyError(
            f"study {study.study_name!r} was made for something else: "
            f"{'; '.join(changed[:4])}{more}; use another study or undo the change"
        )


def _flatten(value: Any, prefix: str = "") -> dict[str, str]:
    if isinstance(value, Mapping):
        flat: dict[str, str] = {}
        for key, item in value.items():
            flat.update(_flatten(item, f"{prefix}.{key}" if prefix else str(key)))
        return flat
    text = repr(value)
    return {prefix: text if len(text) <= 48 else text[:45] + "..."}
