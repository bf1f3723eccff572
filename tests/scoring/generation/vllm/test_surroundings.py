"""What an engine does to its process is undone, without vLLM."""

from __future__ import annotations

import logging
import os
import random

import numpy as np
import pytest
import torch

from optuna_demix.scoring.generation.vllm import surroundings


def test_the_process_is_as_it_was(monkeypatch):
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "DEBUG")
    monkeypatch.setenv("KEPT", "1")
    logger = logging.getLogger("vllm")
    states = random.getstate(), torch.get_rng_state(), np.random.get_state()[1].copy()
    environment, threads, level = dict(os.environ), torch.get_num_threads(), logger.level
    function = torch.set_num_threads
    with pytest.raises(ValueError, match="no"), surroundings.starting():
        assert os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
        assert os.environ["VLLM_LOGGING_LEVEL"] == "ERROR"
        assert logger.level == logging.ERROR
        os.environ["VLLM_DIST_IDENT"] = "x"
        del os.environ["KEPT"]
        torch.set_num_threads(threads + 1)
        torch.set_num_threads = lambda *_: None
        random.seed(0)
        torch.manual_seed(0)
        np.random.seed(0)
        raise ValueError("no")
    assert dict(os.environ) == environment
    assert torch.set_num_threads is function
    assert (torch.get_num_threads(), logger.level) == (threads, level)
    assert torch.is_grad_enabled()
    assert random.getstate() == states[0] and torch.equal(torch.get_rng_state(), states[1])
    assert (np.random.get_state()[1] == states[2]).all()


def test_an_engine_never_works_in_inference_mode():
    with torch.inference_mode(), surroundings.running():
        made = torch.zeros(2)
        assert not torch.is_grad_enabled()
    made += 1  # tensors of inference mode refuse


def test_what_an_engine_sets_while_it_writes_is_gone_afterwards(monkeypatch):
    monkeypatch.setenv("KEPT", "1")
    before = dict(os.environ)
    with surroundings.running():
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = "/elsewhere"
        os.environ["KEPT"] = "2"
    assert dict(os.environ) == before
