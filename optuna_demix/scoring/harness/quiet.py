"""Keep lm-eval and datasets from talking to the terminal."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import datasets
import lm_eval.api.task


@contextmanager
def quiet(*, count_downloads: bool = True) -> Iterator[None]:
    """Keep lm-eval's and datasets' progress bars and chatter from the terminal.

    Args:
        count_downloads: Let ``datasets`` tell its hub that a builder was used. It does so even for
            local files, waiting up to three seconds for an answer where there is no network.
    """
    with ExitStack() as stack:
        logger = logging.getLogger("lm_eval")
        if logger.level == logging.NOTSET:  # leave a level that the user chose
            logger.setLevel(logging.ERROR)
            stack.callback(logger.setLevel, logging.NOTSET)
        bars = lm_eval.api.task.tqdm
        lm_eval.api.task.tqdm = lambda iterable, **_: iterable
        stack.callback(setattr, lm_eval.api.task, "tqdm", bars)
        if not datasets.are_progress_bars_disabled():
            datasets.disable_progress_bars()
            stack.callback(datasets.enable_progress_bars)
        if not count_downloads:
            counting = datasets.config.HF_UPDATE_DOWNLOAD_COUNTS
            datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False
            stack.callback(setattr, datasets.config, "HF_UPDATE_DOWNLOAD_COUNTS", counting)
        yield
