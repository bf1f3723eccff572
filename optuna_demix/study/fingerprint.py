"""The fingerprint of a study: what it searches and scores, claimed by its first worker."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Any

from optuna_demix._wording import shortened
from optuna_demix.attributes import FINGERPRINT_ATTR, FINGERPRINT_CLAIM_PREFIX, OBJECTIVES_ATTR
from optuna_demix.errors import StudyError
from optuna_demix.storage.claim import Claim

if TYPE_CHECKING:
    from optuna.study import Study

SCORING_VERSION = 1
"""Raised whenever a change of our code changes a score: then no study can go on with it.

``tests/scoring/golden_scores.py`` keeps the scores that belong to it.
"""

_LIBRARIES = ("lm-eval", "torch", "transformers", "tokenizers")

_PATIENCE_S = 60.0
"""A first worker that asks for a study for so long, a matter of a second, has died."""

_LISTED = 4
"""Differences that a message names; the others are counted."""


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


def fingerprint_of(study: Study) -> dict[str, Any] | None:
    """The fingerprint that a study was claimed for; ``None`` before."""
    # Public methods for system attributes are gone from Optuna's studies.
    attrs = study._storage.get_study_system_attrs(study._study_id)
    found: dict[str, Any] | None = attrs.get(FINGERPRINT_ATTR)
    return found


def digest_of(fingerprint: Mapping[str, Any]) -> str:
    """A short text that differs where fingerprints do."""
    plain = json.dumps(fingerprint, sort_keys=True)
    return hashlib.sha256(plain.encode()).hexdigest()[:16]


def claim_study(
    study: Study,
    fingerprint: Mapping[str, Any],
    *,
    metric_names: Sequence[str],
    layout: Sequence[Mapping[str, float]],
) -> None:
    """Claim a study for a fingerprint, or check that it was claimed for the same one.

    The first worker writes all of it, and no two workers of different fingerprints are ever let
    through. One that dies before it has written everything leaves the study to all others, or, if
    it held its claim already, to those of its fingerprint.

    Args:
        study: The study.
        fingerprint: All that its scores depend on, as JSON.
        metric_names: Names of its objectives.
        layout: For each objective its benchmarks and their weights.

    Raises:
        StudyError: If the study was made for other components, tasks or constraints.
    """
    decided = fingerprint_of(study)
    if decided is None:
        claim = Claim(
            study, FINGERPRINT_CLAIM_PREFIX, patience_s=_PATIENCE_S, purpose=dict(fingerprint)
        )
        with claim.held(wait=True) as is_held:
            # Another one may have held the claim, and written, before this one did.
            written = fingerprint_of(study)
            decided = claim.decided if written is None else written
            if is_held and decided is None:
                study.set_metric_names(list(metric_names))
                study.set_user_attr(OBJECTIVES_ATTR, list(layout))
                study.set_user_attr(FINGERPRINT_ATTR, digest_of(fingerprint))
                # Last: it is what others take the study for claimed by.
                study._storage.set_study_system_attr(
                    study._study_id, FINGERPRINT_ATTR, dict(fingerprint)
                )
                return
    changed = _differences(decided, fingerprint)
    if changed:
        more = f" and {len(changed) - _LISTED} more" if len(changed) > _LISTED else ""
        raise StudyError(
            f"study {study.study_name!r} was made for something else: "
            f"{'; '.join(changed[:_LISTED])}{more}; use another study or undo the change"
        )


def differences(study: Study, fingerprint: Mapping[str, Any]) -> list[str]:
    """What differs between a study's fingerprint and another one, one line each."""
    stored = fingerprint_of(study)
    return [] if stored is None else _differences(stored, fingerprint)


def _differences(stored: Any, fingerprint: Mapping[str, Any]) -> list[str]:
    theirs, ours = dict(_leaves(stored)), dict(_leaves(fingerprint))
    return [
        f"{key} (study: {_shown(theirs, key)}, here: {_shown(ours, key)})"
        for key in sorted(theirs.keys() | ours.keys())
        if theirs.get(key) != ours.get(key)
    ]


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Each value within a fingerprint as text, with the keys and indices that lead to it."""
    if isinstance(value, Mapping) and value:
        inner = list(value.items())
    elif isinstance(value, (list, tuple)) and value:
        inner = list(enumerate(value))
    else:
        yield name, repr(value)
        return
    for key, item in inner:
        yield from _leaves(item, f"{name}.{key}" if name else str(key))


def _shown(leaves: Mapping[str, str], key: str) -> str:
    return shortened(leaves.get(key, "absent"), 48)
