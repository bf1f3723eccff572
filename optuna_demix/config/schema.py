"""The JSON schema of ``study.yaml``, by which editors complete and check its fields."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import CoreSchema

from optuna_demix.config.study import StudyConfig


def study_schema() -> dict[str, Any]:
    """The JSON schema of a ``study.yaml``, with descriptions and defaults.

    It knows the fields, their kinds and their limits; what fields say about each other, and
    whether names agree, only :func:`load_study_config` knows.
    """
    schema = StudyConfig.model_json_schema(schema_generator=_Generator)
    components = schema["properties"]["components"]
    components["additionalProperties"] = {
        "anyOf": [components["additionalProperties"], {"type": "null"}]
    }
    for model in ("MixtureConfig", "PhaseConfig"):
        topics = schema["$defs"][model]["properties"]["hierarchy"]
        names = {"type": "array", "items": {"type": "string"}, "minItems": 1}
        topics["additionalProperties"] = {"anyOf": [topics["additionalProperties"], names]}
    described = {key: components.pop(key) for key in ("description", "title")}
    names = {"type": "array", "items": {"type": "string"}, "minItems": 1, "uniqueItems": True}
    schema["properties"]["components"] = {"anyOf": [names, components], **described}
    return schema


class _Generator(GenerateJsonSchema):
    """Names the dialect, and writes descriptions as Markdown, which editors show."""

    def generate(self, schema: CoreSchema, mode: Any = "validation") -> JsonSchemaValue:
        """The schema of a model."""
        made = super().generate(schema, mode)
        found = _plain(made)
        return {"$schema": self.schema_dialect, **found}


def _plain(value: Any) -> Any:
    """A schema whose descriptions are single lines without marks of reStructuredText."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    found = {key: _plain(item) for key, item in value.items()}
    described = found.get("description")
    if isinstance(described, str):
        words = " ".join(described.split()).replace(":class:`~optuna_demix.", "`")
        found["description"] = words.replace("``", "`")
    return found
