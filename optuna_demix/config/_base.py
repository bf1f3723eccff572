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


# Limits before validators: so pydantic knows them as limits when it writes a JSON schema.
_NOT_A_FLAG = BeforeValidator(_no_flag)
Share = Annotated[float, Field(ge=0.0, le=1.0), _NOT_A_FLAG]
Number = Annotated[float, _NOT_A_FLAG]
Part = Annotated[float, Field(gt=0.0, lt=1.0), _NOT_A_FLAG]
PositiveShare = Annotated[float, Field(gt=0.0, le=1.0), _NOT_A_FLAG]
PositiveNumber = Annotated[float, Field(gt=0.0), _NOT_A_FLAG]
NonNegativeNumber = Annotated[float, Field(ge=0.0), _NOT_A_FLAG]
PositiveCount = Annotated[int, Field(ge=1), _NOT_A_FLAG]
BlockCount = Annotated[int, Field(ge=4), _NOT_A_FLAG]
Count = Annotated[int, Field(ge=0), _NOT_A_FLAG]
Seed = Annotated[int, Field(ge=0, lt=2**32), _NOT_A_FLAG]
TokenCount = Annotated[PositiveCount, BeforeValidator(_integer_from_float)]


class StrictModel(BaseModel):
    """A section whose fields are all known and whose numbers are all finite."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,  # they are the reference of the fields, and the schema's
    )
