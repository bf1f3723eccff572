"""A sandbox for tests, or the reason why this machine has none."""

from __future__ import annotations

import functools

import pytest

from optuna_demix.errors import TaskError
from optuna_demix.scoring.sandbox import Sandbox


@functools.cache
def refusal() -> str | None:
    box = Sandbox([])
    try:
        box.start()
    except (TaskError, AttributeError) as error:  # no sched_getaffinity but on Linux
        return str(error)
    finally:
        box.close()
    return None


def need_a_sandbox() -> None:
    if (said := refusal()) is not None:
        pytest.skip(said)
