"""Read a ``study.yaml``."""

from __future__ import annotations

import os
from pathlib import Path

import yaml
from pydantic import ValidationError

from optuna_demix._wording import one_line, shortened
from optuna_demix.config._messages import explain
from optuna_demix.config._yaml import load_yaml
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
    return read_study_config(text, source)


def read_study_config(text: str, source: Path) -> StudyConfig:
    """Read and check the text of a ``study.yaml``.

    Args:
        text: What the file holds, or will hold.
        source: The file, from whose folder relative paths start.

    Raises:
        ConfigError: As :func:`load_study_config`.
    """
    try:
        data = load_yaml(text)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{source}: is not valid YAML: {_where(error)}; correct it") from None
    except RecursionError:
        raise ConfigError(f"{source}: is nested too deeply to be a study.yaml") from None
    if not isinstance(data, dict):
        raise ConfigError(
            f"{source}: must be a mapping of fields, as 'optuna-demix init' writes one"
        )
    try:
        config = StudyConfig.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{source}: {explain(error, StudyConfig)}") from None
    config._source = source.resolve()
    return config


def _where(error: Exception) -> str:
    """What is wrong with YAML, and where."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return one_line(error)
    mark = error.problem_mark
    problem = shortened(" ".join((error.problem or str(error.context)).split()))
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}"
