"""What all sections of a ``study.yaml`` share."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveInt,
)


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


TokenCount = Annotated[PositiveInt, BeforeValidator(_integer_from_float)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class StrictModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
