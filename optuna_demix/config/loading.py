"""Read a ``study.yaml``, and explain what is wrong with it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import (
    BaseModel,
    ValidationError,
)

from optuna_demix._wording import one_line, shortened, unknown_name
from optuna_demix.config.study import StudyConfig
from optuna_demix.errors import ConfigError


def load_study_config(path: str | os.PathLike[str]) -> StudyConfig:
    """Read and check a ``study.yaml``.

    Args:
        path: The file.

    Raises:
        ConfigError: If the file cannot be read, is not YAML, or has a field that is missing,
            unknown or of the wrong kind; the message names file, field and remedy.
    """
    source = Path(path)
    try:
        text = source.read_text(encoding="utf-8")
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"{source}: cannot be read ({reason}); give a study.yaml") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{source}: is not UTF-8 text; give a study.yaml") from None
    try:
        data = yaml.load(text, Loader=_UniqueKeyLoader)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{source}: is not valid YAML: {one_line(error)}") from None
    except RecursionError:
        raise ConfigError(f"{source}: is nested too deeply to be a study.yaml") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{source}: must be a mapping of fields, as in studies/quickstart")
    try:
        config = StudyConfig.model_validate(data)
    except ValidationError as error:
        # A key of the file may hold line breaks; a message must not.
        raise ConfigError(f"{source}: {' '.join(_explain(error).split())}") from None
    config._source = source.resolve()
    return config


class _UniqueKeyLoader(yaml.SafeLoader):
    """A safe loader that refuses a key given twice, where YAML would keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, (dict, list)):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be a plain name", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"field {key!r} is there twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def _explain(error: ValidationError) -> str:
    """One line that names each bad field and what to do about it."""
    parts = []
    for item in error.errors(include_url=False)[:3]:
        field = ".".join(str(part) for part in item["loc"]) or "study"
        if item["type"] == "extra_forbidden":
            known = _fields_at(item["loc"][:-1])
            parts.append(f"{field}: {unknown_name(str(item['loc'][-1]), known, 'field')}")
        elif item["type"] == "missing":
            parts.append(f"{field}: is missing; add it")
        elif item["type"] == "value_error":
            message = item["msg"].removeprefix("Value error, ")
            parts.append(message if field == "study" else f"{field}: {message}")
        else:
            parts.append(
                f"{field}: {item['msg'].lower()} (got {shortened(repr(item['input']), 60)})"
            )
    more = error.error_count() - len(parts)
    return "; ".join(parts) + (f"; and {more} more" if more > 0 else "")


def _fields_at(location: Sequence[int | str]) -> list[str]:
    """Names of the fields that may stand at a place in the file."""
    model: Any = StudyConfig
    for part in location:
        field = model.model_fields.get(str(part))
        if field is None:
            continue  # a key or an index of a container: still the same model
        model = _inner_model(field.annotation)
        if model is None:
            return []
    return list(model.model_fields)


def _inner_model(annotation: Any) -> Any:
    """The model inside ``dict[str, Model]``, ``list[Model]`` or ``Model | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        inner = _inner_model(argument)
        if inner is not None:
            return inner
    return None
