"""How sources of earlier studies became those of this one: renamed, split, merged, removed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from optuna_demix._wording import shown, unknown_name
from optuna_demix.errors import ConfigError

if TYPE_CHECKING:
    from optuna_demix._typing import FloatArray

_SUM_ERROR = 1e-6
# A trial says something of what is left of its mixture while no more than this was removed.
_MOST_REMOVED = 0.5


class Mapped(NamedTuple):
    """A mixture of earlier sources in today's."""

    weights: FloatArray  # (K,)
    is_exact: bool  # whether it is the same mixture, and not one like it


class WarmMap:
    """Shares of today's components in those of earlier studies.

    Args:
        given: Earlier component -> today's component -> share of it. The shares sum to 1; a
            component that was removed has none. Components that are not named stay as they are.

    Raises:
        ConfigError: If it is anything else.
    """

    def __init__(self, given: Mapping[str, Mapping[str, float]]) -> None:
        if not isinstance(given, Mapping):
            raise ConfigError(
                f"warm_map must be a mapping {{old: {{new: share}}}}, got {shown(given)}"
            )
        self._shares = {str(old): _shares_of(old, parts) for old, parts in given.items()}

    def check(self, components: Sequence[str]) -> None:
        """Refuse names that are no component of today.

        Raises:
            ConfigError: For the first of them.
        """
        for old, parts in self._shares.items():
            for new in parts:
                if new not in components:
                    hint = unknown_name(new, components, "component")
                    raise ConfigError(f"warm_map: {old!r}: {hint}")

    @property
    def names(self) -> tuple[str, ...]:
        """Components of earlier studies that it maps."""
        return tuple(self._shares)

    def place(self, old: Mapping[str, float], components: Sequence[str]) -> Mapped | None:
        """A mixture in today's components; ``None`` if it gives weight to unknown ones.

        Args:
            old: Weights of an earlier study that sum to 1.
            components: Today's components, K.
        """
        weights = dict.fromkeys(components, 0.0)
        sources: dict[str, int] = dict.fromkeys(components, 0)
        is_exact = True
        for name, weight in old.items():
            if weight <= 0.0:
                continue
            parts = self._shares.get(name, {name: 1.0})
            is_exact &= len(parts) == 1
            for new, share in parts.items():
                if new not in weights:
                    return None
                weights[new] += weight * share
                sources[new] += 1
        total = sum(weights.values())
        if total < 1.0 - _MOST_REMOVED:
            return None
        is_exact &= max(sources.values(), default=0) <= 1
        return Mapped(np.array(list(weights.values())) / total, is_exact)


def _shares_of(old: object, parts: Any) -> dict[str, float]:
    what = f"warm_map: {old!r}"
    if not isinstance(parts, Mapping):
        raise ConfigError(
            f"{what} must map to {{new: share}}, got {shown(parts)}; {{}} if it was removed"
        )
    try:
        shares = {str(new): float(share) for new, share in parts.items()}
    except (TypeError, ValueError):
        raise ConfigError(f"{what}: shares must be numbers, got {shown(parts)}") from None
    if any(not 0.0 <= share <= 1.0 for share in shares.values()):
        raise ConfigError(f"{what}: shares must lie between 0 and 1, got {shown(parts)}")
    total = sum(shares.values())
    if shares and abs(total - 1.0) > _SUM_ERROR:
        raise ConfigError(f"{what}: the shares sum to {total:.6g}; they must sum to 1")
    return {new: share / total for new, share in shares.items() if share > 0.0}


def named_weights(
    written: Any, params: Mapping[str, Any], names: Iterable[str], prefix: str
) -> dict[str, float] | None:
    """Weights of a trial by component, as far as it has any of these names."""
    if not isinstance(written, Mapping):
        written = {name: params[prefix + name] for name in names if prefix + name in params}
    try:
        weights = {str(name): float(value) for name, value in written.items()}
    except (TypeError, ValueError):
        return None
    total = sum(weights.values())
    is_whole = abs(total - 1.0) <= _SUM_ERROR and min(weights.values()) >= -_SUM_ERROR
    return {name: max(value, 0.0) for name, value in weights.items()} if is_whole else None
