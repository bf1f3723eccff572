"""Reference models on disk: what each was trained on, and the merge weights of its proxy."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from optuna_demix.errors import ConfigError
from optuna_demix.mixture.reach import nearest_weights
from optuna_demix.training import RECORD_FILE

if TYPE_CHECKING:
    from optuna_demix._typing import FloatArray
    from optuna_demix.mixture import MixtureSpace

MIXTURES_FILE = "mixtures.json"
"""File beside the references of another trainer: ``{folder: {dataset: share}}``."""

LEAST = 8
"""Fewer references say nothing about ranks: the check refuses."""

_SUM = 1e-3  # how far the shares of a mixture may miss the sum 1: they may have been printed
_MISSED = 5e-3  # largest share that merged components may be off a reference's


@dataclass(frozen=True)
class Reference:
    """A model really trained on a known mixture.

    Attributes:
        name: Name of its folder.
        path: The folder.
        shares: Share of each dataset in what it was trained on; they sum to 1.
        weights: Merge weights of its proxy; they sum to 1.
        tokens: Tokens it was trained on, if known.
        base: Digest of the base it started from, if known.
    """

    name: str
    path: Path
    shares: dict[str, float]
    weights: dict[str, float]
    tokens: int | None = None
    base: str | None = None


def find_references(folder: Path, space: MixtureSpace) -> list[Reference]:
    """Read every reference of a folder.

    A reference is a subfolder with a model. Its mixture is in the ``training.json`` that
    ``optuna-demix train`` writes, else in :data:`MIXTURES_FILE` of ``folder``: data shares
    ``{dataset: share}``, or ``{"merge_weights": {component: weight}}``.

    Args:
        folder: The folder of references.
        space: The study's mixtures.

    Returns:
        The references, by name; numbers in their order.

    Raises:
        ConfigError: If there are fewer than :data:`LEAST`, or a mixture is missing, does not sum
            to 1, names what the study does not know, or cannot be merged from its components.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: is no directory; give the folder of the reference models")
    given = _mixtures(folder / MIXTURES_FILE)
    models = [path for path in folder.iterdir() if (path / "config.json").is_file()]
    for name in given:
        if not (folder / name / "config.json").is_file():
            raise ConfigError(
                f"{folder / MIXTURES_FILE}: {name!r}: there is no model in {folder / name}; "
                "correct the name or remove the line"
            )
    references = [_read(path, given, space) for path in sorted(models, key=_order)]
    if len(references) < LEAST:
        raise ConfigError(
            f"{folder}: {len(references)} reference models are too few to judge ranks by; train "
            f"at least {LEAST} (optuna-demix train STUDY.yaml --references N)"
        )
    return references


def _order(path: Path) -> tuple[int, str]:
    return (int(path.name) if path.name.isdigit() else -1, path.name)


def _mixtures(file: Path) -> dict[str, Any]:
    if not file.exists():
        return {}
    content = _json(file)
    if not all(isinstance(mixture, dict) for mixture in content.values()):
        raise ConfigError(f"{file}: must map each reference to {{dataset: share}}; correct it")
    return content


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise ConfigError(f"{file}: cannot be read as JSON ({reason}); correct it") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: must hold one JSON object; correct it")
    return content


def _read(path: Path, given: Mapping[str, Any], space: MixtureSpace) -> Reference:
    if path.name in given:
        where = f"{path.parent / MIXTURES_FILE}: {path.name!r}"
        mixture = given[path.name]
        if list(mixture) == ["merge_weights"]:
            weights = _vector(mixture["merge_weights"], space.components, "component", where)
            return _reference(path, weights @ space.composition, weights, space)
        shares = _vector(mixture, space.datasets, "dataset", where)
        return _reference(path, shares, _weights(shares, space, where), space)
    file = path / RECORD_FILE
    if not file.exists():
        raise ConfigError(
            f"{path}: its mixture is not known; write it into {path.parent / MIXTURES_FILE}"
        )
    record = _json(file)
    where = str(file)
    try:
        asked = {name: facts["share_asked"] for name, facts in record["data"].items()}
        recipe = record["recipe"]
        tokens = int(record["tokens"])
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ConfigError(f"{file}: was not written by optuna-demix train; remove it") from None
    shares = _vector(asked, space.datasets, "dataset", where)
    # The sampled weights say more than the shares where several weights give the same.
    sampled = record.get("merge_weights")
    if isinstance(sampled, dict) and set(sampled) == set(space.components):
        weights = _vector(sampled, space.components, "component", where)
        if float(np.abs(weights @ space.composition - shares).max()) > _MISSED:
            weights = _weights(shares, space, where)  # sampled for another composition
    else:
        weights = _weights(shares, space, where)
    return _reference(path, shares, weights, space, tokens=tokens, base=recipe.get("base"))


def _reference(
    path: Path,
    shares: FloatArray,
    weights: FloatArray,
    space: MixtureSpace,
    *,
    tokens: int | None = None,
    base: str | None = None,
) -> Reference:
    return Reference(
        path.name,
        path,
        dict(zip(space.datasets, shares.tolist(), strict=True)),
        dict(zip(space.components, weights.tolist(), strict=True)),
        tokens,
        base,
    )


def _vector(given: Any, names: tuple[str, ...], kind: str, where: str) -> FloatArray:
    """Shares (n,) in the order of the names; what is not named is 0."""
    if not isinstance(given, dict):
        raise ConfigError(f"{where}: must give each {kind} its share; correct it")
    for name, share in given.items():
        if name not in names:
            raise ConfigError(
                f"{where}: no {kind} {name!r} in the study; it has {', '.join(names)}"
            )
        if not isinstance(share, int | float) or not (math.isfinite(share) and share >= 0.0):
            raise ConfigError(
                f"{where}: the share of {name!r} must be a number from 0 to 1, got {share!r}"
            )
    total = math.fsum(given.values())
    if abs(total - 1.0) > _SUM:
        raise ConfigError(
            f"{where}: the shares sum to {total:.6g}, not to 1; correct them (token counts must "
            "be divided by their sum)"
        )
    return np.array([float(given.get(name, 0.0)) / total for name in names])


def _weights(shares: FloatArray, space: MixtureSpace, where: str) -> FloatArray:
    """Merge weights (K,) of data shares (D,) that the components reach."""
    weights = nearest_weights(shares, space.composition)
    off = np.abs(weights @ space.composition - shares)
    if off.max() > _MISSED:
        worst = int(off.argmax())
        near = float((weights @ space.composition)[worst])
        raise ConfigError(
            f"{where}: the components cannot be merged to this mixture: of "
            f"{space.datasets[worst]!r} it has {shares[worst]:.4f}, the nearest proxy "
            f"{near:.4f}; train references within reach of the components"
        )
    return weights
