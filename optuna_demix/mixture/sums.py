"""Bounds on sums of merge weights or data shares, as a user gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, Literal, TypeVar, get_args

from optuna_demix.errors import ConfigError, ConstraintError
from optuna_demix.mixture._arguments import names_of, number

Of = Literal["weights", "shares"]
Kind = TypeVar("Kind")


@dataclass(frozen=True)
class Group:
    """Bounds on the sum of several merge weights, or of several data shares.

    Attributes:
        name: Name for messages; unique within a space.
        members: Components if ``of`` is ``"weights"``, datasets if it is ``"shares"``.
        lower: Least sum, in [0, 1].
        upper: Largest sum, in [0, 1].
        of: What is summed.

    Raises:
        ConfigError: If a field cannot be used.
        ConstraintError: If ``lower`` exceeds ``upper``.
    """

    name: str
    members: tuple[str, ...]
    lower: float = 0.0
    upper: float = 1.0
    of: Of = "weights"

    def __post_init__(self) -> None:
        """Check and normalize the fields."""
        if not isinstance(self.name, str) or not self.name.strip():
            raise ConfigError(f"a group needs a non-empty name, got {self.name!r}")
        what = f"group {self.name!r}"
        members = names_of(
            self.members, f"members of {what}", "coefficients belong in constraints="
        )
        object.__setattr__(self, "members", members)
        for side in ("lower", "upper"):
            value = number(getattr(self, side), f"{side} bound of {what}", least=0.0, most=1.0)
            object.__setattr__(self, side, value)
        if self.lower > self.upper:
            raise ConstraintError(
                f"{what}: lower bound {self.lower:g} exceeds its upper bound {self.upper:g}"
            )
        check_of(self.of, what)

    @classmethod
    def parse(cls, value: Group | Mapping[str, Any]) -> Group:
        """Return the group itself, or the one that a mapping of its fields describes.

        Raises:
            ConfigError: If a field is missing, unknown or unusable.
        """
        return read_fields(cls, value, ("name", "members"), "group")


@dataclass(frozen=True)
class LinearConstraint:
    """Bounds on a sum of merge weights, or of data shares, each times a coefficient.

    Example:
        >>> half = LinearConstraint({"reddit": 1, "web": -0.5}, upper=0)  # reddit <= web / 2

    Attributes:
        coefficients: Coefficient by component if ``of`` is ``"weights"``, by dataset if it is
            ``"shares"``; those left out are 0.
        lower: Least sum, or None.
        upper: Largest sum, or None. Not both are None.
        of: What is summed.
        name: Name for messages; None for the sum itself, written out.

    Raises:
        ConfigError: If a field cannot be used.
        ConstraintError: If ``lower`` exceeds ``upper``.
    """

    coefficients: Mapping[str, float]
    lower: float | None = None
    upper: float | None = None
    of: Of = "weights"
    name: str | None = None

    def __post_init__(self) -> None:
        """Check and normalize the fields."""
        if not isinstance(self.coefficients, Mapping) or not self.coefficients:
            raise ConfigError(
                "a constraint needs 'coefficients', a number for each name, "
                f"got {self.coefficients!r}"
            )
        read = {
            str(name): number(value, f"constraint: the coefficient of {name!r}")
            for name, value in self.coefficients.items()
        }
        if not any(read.values()):
            raise ConfigError("constraint: the coefficients are all 0; leave it out")
        object.__setattr__(self, "coefficients", MappingProxyType(read))
        if self.name is not None and (not isinstance(self.name, str) or not self.name.strip()):
            raise ConfigError(f"a constraint's name must be a non-empty string, got {self.name!r}")
        for side in ("lower", "upper"):
            if (value := getattr(self, side)) is not None:
                value = number(value, f"{side} bound of constraint {self.title}")
                object.__setattr__(self, side, value)
        if self.lower is None and self.upper is None:
            raise ConfigError(f"constraint {self.title} has no bound; give 'lower' or 'upper'")
        if self.lower is not None and self.upper is not None and self.lower > self.upper:
            raise ConstraintError(
                f"constraint {self.title}: lower bound {self.lower:g} exceeds its upper bound "
                f"{self.upper:g}"
            )
        check_of(self.of, f"constraint {self.title}")

    @property
    def title(self) -> str:
        """The name, or the sum written out."""
        if self.name is not None:
            return repr(self.name)
        terms = ""
        for name, value in self.coefficients.items():
            sign = (" - " if terms else "-") if value < 0 else (" + " if terms else "")
            size = "" if abs(value) == 1 else f"{abs(value):g} "
            terms += f"{sign}{size}{name!r}"
        return terms

    @classmethod
    def parse(cls, value: LinearConstraint | Mapping[str, Any]) -> LinearConstraint:
        """Return the constraint itself, or the one that a mapping of its fields describes.

        Raises:
            ConfigError: If a field is missing, unknown or unusable.
        """
        return read_fields(cls, value, ("coefficients",), "constraint")

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the fields: the coefficients are a read-only view, which cannot be."""
        return LinearConstraint, (
            dict(self.coefficients),
            self.lower,
            self.upper,
            self.of,
            self.name,
        )

    def __hash__(self) -> int:
        """Hash of the fields."""
        entries = tuple(sorted(self.coefficients.items()))
        return hash((entries, self.lower, self.upper, self.of, self.name))


def check_of(of: object, what: str) -> None:
    """Refuse sums of anything but merge weights or data shares.

    Raises:
        ConfigError: If it is anything else.
    """
    if of not in get_args(Of):
        raise ConfigError(f'{what}: \'of\' is "weights" or "shares", got {of!r}')


def read_fields(kind: type[Kind], value: Any, needed: Sequence[str], noun: str) -> Kind:
    """Return an object of a dataclass as it is, or the one that a mapping of its fields describes.

    Raises:
        ConfigError: If it is anything else, or a field is missing, unknown or unusable.
    """
    if isinstance(value, kind):
        return value
    if not isinstance(value, Mapping):
        raise ConfigError(
            f"a {noun} is a {kind.__name__} or a mapping of its fields, got {value!r}"
        )
    check_fields(kind, value, needed, f"{noun} {value.get('name', '?')!r}")
    return kind(**value)


def check_fields(
    kind: type[Any], given: Mapping[str, Any], needed: Sequence[str], what: str
) -> None:
    """Refuse a mapping that lacks fields of a dataclass, or has others.

    Raises:
        ConfigError: For the first of them.
    """
    known = [field.name for field in fields(kind)]
    unknown = [str(key) for key in given if key not in known]
    missing = [key for key in needed if key not in given]
    if unknown or missing:
        wrong = f"unknown field {unknown[0]!r}" if unknown else f"no field {missing[0]!r}"
        raise ConfigError(f"{what} has {wrong}; fields are {', '.join(known)}")
