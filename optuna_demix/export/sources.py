"""Datasets and stages to train on, in the units that training frameworks ask for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from optuna_demix._apportion import apportion
from optuna_demix.errors import ConfigError

_DIGITS = 6  # of a share of tokens
_EXAMPLE_DIGITS = 12  # of a share of examples, which may be far smaller than that of the tokens


@dataclass(frozen=True)
class DataSource:
    """One dataset of a mixture.

    Attributes:
        name: The dataset.
        share: Its share of the training tokens; those of all sources sum to 1.
        example_share: Its share of the training examples, for frameworks that draw examples.
        path: Where its data lies.
        epochs: How often its tokens are seen in a run of the planned budget; ``None`` where its
            size or the budget is unknown.
        examples: How many of its examples are seen in such a run; ``None`` where the length of
            an example or the budget is unknown.
        tokens: How many of its tokens are seen in such a run; ``None`` without a budget.
    """

    name: str
    share: float
    example_share: float
    path: str
    epochs: float | None
    examples: float | None
    tokens: float | None


@dataclass(frozen=True)
class Stage:
    """A stage of a run, with a mixture of its own.

    Attributes:
        name: Its name.
        share: Its share of the run's training tokens.
        sources: Its mixture; epochs, examples and tokens are those of the stage.
    """

    name: str
    share: float
    sources: Sequence[DataSource]

    @property
    def tokens(self) -> float | None:
        """Training tokens of the stage; ``None`` without a budget."""
        return tokens_of(self.sources)


def tokens_of(sources: Sequence[DataSource]) -> float | None:
    """Training tokens of a mixture; ``None`` without a budget."""
    known = [source.tokens for source in sources if source.tokens is not None]
    return math.fsum(known) if known else None


def sources_of(
    shares: Mapping[str, float],
    *,
    paths: str = "{dataset}",
    example_tokens: Mapping[str, float] | None = None,
    tokens: Mapping[str, float] | None = None,
    budget: float | None = None,
) -> list[DataSource]:
    """The datasets of a mixture, without those whose share rounds to 0 (see :func:`left_out`).

    Shares are of tokens. A framework that draws examples needs the shares of examples, which are
    in proportion to share / mean length.

    Args:
        shares: Data shares by dataset; they sum to 1.
        paths: Where the data lies, with ``{dataset}`` for the name.
        example_tokens: Mean tokens of an example by dataset; without it examples count as equally
            long, as packed sequences are.
        tokens: Tokens of each dataset, where known.
        budget: Tokens of the planned training run.

    Raises:
        ConfigError: If a share is negative, the shares do not sum to 1, an argument names an
            unknown dataset, or only some lengths are given.
    """
    if not shares or any(not share >= 0.0 for share in shares.values()):
        raise ConfigError(f"data shares must not be negative or missing, got {dict(shares)}")
    if abs(sum(shares.values()) - 1.0) > 1e-6:
        raise ConfigError(f"data shares must sum to 1, got {sum(shares.values()):g}")
    if len(shares) > 1 and "{dataset}" not in paths:
        raise ConfigError(f"paths {paths!r}: write {{dataset}} where the name of each one belongs")
    by_name = dict(zip(shares, rounded(list(shares.values())), strict=True))
    kept = [name for name, share in by_name.items() if share > 0.0]
    lengths = _lengths(shares, kept, example_tokens)
    # A short example takes many more draws than its share of tokens says, a long one fewer.
    digits = _DIGITS if not example_tokens else _EXAMPLE_DIGITS
    examples = rounded([by_name[name] / lengths[name] for name in kept], digits=digits)
    return [
        DataSource(
            name=name,
            share=by_name[name],
            example_share=example,
            path=paths.replace("{dataset}", name),
            epochs=_ratio(by_name[name], budget, (tokens or {}).get(name)),
            examples=_ratio(by_name[name], budget, (example_tokens or {}).get(name)),
            tokens=by_name[name] * budget if budget else None,
        )
        for name, example in zip(kept, examples, strict=True)
    ]


def left_out(shares: Mapping[str, float], sources: Sequence[DataSource]) -> dict[str, float]:
    """Datasets whose share is positive but rounds to 0, with their shares.

    Args:
        shares: Data shares by dataset, as given to :func:`sources_of`.
        sources: What it returned.
    """
    kept = {source.name for source in sources}
    return {name: share for name, share in shares.items() if share > 0.0 and name not in kept}


def rounded(shares: Sequence[float], *, digits: int = _DIGITS) -> list[float]:
    """Shares rounded so that they still sum to 1, see :func:`~optuna_demix._apportion.apportion`.

    Args:
        shares: Not negative, with a positive sum.
        digits: Decimal digits to keep.
    """
    units = 10**digits
    return [int(part) / units for part in apportion(shares, units)]


def _lengths(
    shares: Mapping[str, float], kept: Sequence[str], given: Mapping[str, float] | None
) -> Mapping[str, float]:
    if not given:
        return dict.fromkeys(kept, 1.0)
    unknown = [name for name in given if name not in shares]
    if unknown:
        raise ConfigError(f"no dataset {unknown[0]!r}; known: {', '.join(shares)}")
    missing = [name for name in kept if name not in given]
    if missing:
        raise ConfigError(
            f"mean tokens of an example are missing for {', '.join(missing)}; give them for all "
            "datasets or for none"
        )
    bad = [name for name, length in given.items() if not 0 < length < math.inf]
    if bad:
        raise ConfigError(f"mean tokens of an example of {bad[0]!r} must be positive")
    return given


def _ratio(share: float, budget: float | None, size: float | None) -> float | None:
    """The tokens that a share has of the budget, in units of a size."""
    return share * budget / size if budget and size else None
