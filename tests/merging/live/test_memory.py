"""A proxy that is too large for its device."""

from __future__ import annotations

import pytest
import torch

from optuna_demix.errors import ComponentError
from optuna_demix.merging import LiveModel
from optuna_demix.merging.live import memory as _memory


def test_what_is_needed_and_what_is_free_is_said(arena, tmp_path, monkeypatch):
    needed = arena.layout.n_padded * 4
    info = tmp_path / "meminfo"
    monkeypatch.setattr(_memory, "_MEMINFO", info)
    info.write_text(f"MemTotal: 99999999 kB\nMemAvailable: {needed // 1024 - 1} kB\n")
    free = (needed // 1024 - 1) * 1024
    with pytest.raises(ComponentError) as raised:
        LiveModel(arena, dtype="float32")
    assert f"needs {needed:,} bytes in float32, but cpu has {free:,} free" in str(raised.value)
    assert "set scoring.dtype to bfloat16" in str(raised.value)
    LiveModel(arena, dtype="bfloat16")


def test_a_host_that_does_not_tell(arena, tmp_path, monkeypatch):
    monkeypatch.setattr(_memory, "_MEMINFO", tmp_path / "nothing")
    assert _memory.free_bytes(torch.device("cpu")) is None
    LiveModel(arena)
