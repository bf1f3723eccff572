"""Silence transformers where this package checks by itself what it would report."""

from __future__ import annotations

import logging as python_logging
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

from transformers.utils import logging

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence progress bars, warnings and load reports."""
    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


@contextmanager
def quiet_accelerate() -> Iterator[None]:
    """Silence warnings about devices and modules that are checked or meant as they are."""
    logger = python_logging.getLogger("accelerate")
    level = logger.level
    logger.setLevel(python_logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        logger.setLevel(level)
