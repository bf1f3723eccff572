"""Templates of tasks, compiled once."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager

from lm_eval.utils import env

_compiled = functools.lru_cache(maxsize=1024)(env.from_string)


@contextmanager
def compiled_once() -> Iterator[None]:
    """Let lm-eval compile each template once, not once for every document.

    Compiling takes about a millisecond, rendering some twenty microseconds.
    """
    usual, env.from_string = env.from_string, _compiled
    try:
        yield
    finally:
        env.from_string = usual
