"""What vLLM changes in the process it runs in, put back as it was."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch

from optuna_demix.scoring.randomness import RandomState

_IN_PROCESS = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1",  # our own max_length decides
}
"""Environment that vLLM starts in."""

_QUIET = logging.ERROR


@contextmanager
def starting() -> Iterator[None]:
    """Start an engine inside; only the modules that were imported stay."""
    threads, set_threads = torch.get_num_threads(), torch.set_num_threads
    try:
        with running():
            os.environ.update(_IN_PROCESS)
            yield
    finally:
        torch.set_num_threads = set_threads  # on a CPU vLLM puts one without effect in its place
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        gc.unfreeze()  # vLLM hides all that lives from the collector, ours with it


@contextmanager
def running() -> Iterator[None]:
    """Let an engine work inside, quietly; random generators and environment stay as they are.

    It sees no inference mode: weights that were made in it could never be changed outside.
    """
    with ExitStack() as stack:
        stack.callback(_restore_environment, dict(os.environ))  # its first step sets some, too
        stack.callback(RandomState.current().restore)
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        logger = logging.getLogger("vllm")
        if logger.level < _QUIET:
            stack.callback(logger.setLevel, logger.level)
            logger.setLevel(_QUIET)
        yield


def _restore_environment(before: Mapping[str, str]) -> None:
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)
