from __future__ import annotations

import numpy as np
import pytest

from optuna_demix.surrogate._threads import one_blas_thread

threadpoolctl = pytest.importorskip("threadpoolctl")


def _threads() -> set[int]:
    np.eye(2) @ np.eye(2)
    pools = threadpoolctl.threadpool_info()
    return {pool["num_threads"] for pool in pools if pool["user_api"] == "blas"}


def test_blas_is_limited_inside_and_restored_after_the_last_user() -> None:
    with one_blas_thread():  # loads whatever BLAS there is
        pass
    with threadpoolctl.threadpool_limits(limits=2, user_api="blas"):
        outside = _threads()
        with one_blas_thread():
            with one_blas_thread():
                assert _threads() == {1}
            assert _threads() == {1}
        assert _threads() == outside == {2}


def test_limit_ends_with_an_error() -> None:
    before = _threads()
    with pytest.raises(ZeroDivisionError), one_blas_thread():
        raise ZeroDivisionError
    assert _threads() == before
