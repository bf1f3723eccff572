"""Why something of lm-eval's or a task author's failed, in one line."""

from __future__ import annotations

import yaml

from optuna_demix._wording import shortened


def reason(error: BaseException) -> str:
    """An exception with its type, its first line and its cause; a YAML error with its line."""
    mark = getattr(error, "problem_mark", None)
    if isinstance(error, yaml.YAMLError) and mark is not None:
        return f"line {mark.line + 1}: {getattr(error, 'problem', None) or 'not YAML'}"
    lines = str(error).strip().splitlines()
    name = type(error).__name__
    said = f"{name}: {shortened(lines[0])}" if lines else name
    cause = error.__cause__
    return said if cause is None or type(cause) is type(error) else f"{said} ({reason(cause)})"
