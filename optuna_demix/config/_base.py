"""What all sections of a ``study.yaml`` share."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError


def _no_flag(value: Any) -> Any:
    """Refuse ``true`` and ``false``, which are numbers in Python; ``yes`` and ``on`` are flags."""
    if isinstance(value, bool):
        raise PydanticCustomError("flag_for_number", "a flag")
    return value


def _integer_from_float(value: Any) -> Any:
    """Accept ``3e9`` and ``50_000`` where an integer is meant: YAML 1.1 reads them otherwise."""
    if isinstance(value, str):
        try:
            value = float(value.replace("_", ""))
        except ValueError:
            return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


Share = Annotated[float, BeforeValidator(_no_flag), Field(ge=0.0, le=1.0)]
Number = Annotated[float, BeforeValidator(_no_flag)]
PositiveNumber = Annotated[float, BeforeValidator(_no_flag), Field(gt=0.0)]
NonNegativeNumber = Annotated[float, BeforeValidator(_no_flag), Field(ge=0.0)]
PositiveCount = Annotated[int, BeforeValidator(_no_flag), Field(ge=1)]
Count = Annotated[int, BeforeValidator(_no_flag), Field(ge=0)]
Seed = Annotated[int, BeforeValidator(_no_flag), Field(ge=0, lt=2**32)]
TokenCount = Annotated[PositiveCount, BeforeValidator(_integer_from_float)]


class StrictModel(BaseModel):
    """A section whose fields are all known and whose numbers are all finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
