"""The benchmark of accelerators, tiny and on the CPU."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lm_eval")

import gpu  # noqa: E402

from optuna_demix.cli import main  # noqa: E402


def test_every_part_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def here(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, main(command[3:]))

    monkeypatch.setattr(subprocess, "run", here)
    found = gpu.run(gpu.Bench(torch.device("cpu"), gpu.TINY, tmp_path))
    rows = {(row["what"], row["way"]): row for row in found["rows"]}
    assert list(rows) == [
        ("memory", "own"),
        ("merge", "resident"),
        ("merge", "streamed"),
        ("likelihood", "plain"),
        ("likelihood", "packed, shared prefixes"),
        ("texts", "lm-eval's loop"),
        ("texts", "own loop"),
        ("workers", "1 in all, trials alone"),
    ]
    assert all(row["rate"] > 0 and row["seconds"] > 0 for row in rows.values())
    assert found["arena_bytes"] >= gpu.K * 2 * found["parameters"]  # bfloat16
    ((_, _, package, command, *_),) = commands
    assert (package, command) == ("optuna_demix", "worker")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device")
def test_without_a_device_it_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["gpu.py"])
    with pytest.raises(SystemExit):
        gpu.main()
    assert "try --device cpu --tiny" in capsys.readouterr().err
