"""One BLAS thread while small matrices are factorized.

The matrices here have a few hundred rows: more threads make them several times slower, worse with
many workers on a host, and let the last digits of a result depend on the machine.
"""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_lock = threading.Lock()
_depth = 0
_limit: AbstractContextManager[Any] = nullcontext()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limit BLAS to one thread, until the last of the nested or concurrent users has left."""
    global _depth, _limit
    with _lock:
        if _depth == 0:
            _limit = _new_limit()
            _limit.__enter__()
        _depth += 1
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                _limit.__exit__(None, None, None)


def _new_limit() -> AbstractContextManager[Any]:
    controller = _controller()
    if controller is None:
        return nullcontext()
    limit: AbstractContextManager[Any] = controller.limit(limits=1, user_api="blas")
    return limit


@lru_cache(maxsize=1)
def _controller() -> Any:
    """Controller of the BLAS libraries of numpy and scipy; ``None`` without threadpoolctl."""
    import scipy.linalg  # noqa: F401 - brings a BLAS of its own, which must be loaded to be found

    try:
        from threadpoolctl import (  # type: ignore[import-untyped]
            ThreadpoolController,
        )
    except ImportError:
        return None
    return ThreadpoolController()
