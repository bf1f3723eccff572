"""Train commands on two hosts that share a run's folder, killed at random moments.

``python -m tests.training.hosts ALONE.yaml SHARED.yaml SEED REFERENCES`` trains a study by one
process, then its twin by two processes on each of two hosts, and prints what happened as JSON.
Processes of the first host are killed twice each and started again, those of the second are killed
once and never come back. All are forked from this one: importing torch takes seconds.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers.models.llama.modeling_llama
import transformers.trainer  # noqa: F401

from optuna_demix.config import StudyConfig, load_study_config
from optuna_demix.training import _checkpoints, _lease, _one_model, _place, _turns, train_study
from optuna_demix.training._pilot import Pilot

_SURVIVES = 10**9
_KILLS = {"first": 2, "second": 1}  # of each process, by host

_MOMENTS = (
    (Pilot, "step"),  # first, as it is most of them
    (Pilot, "saved"),
    (_lease.Lease, "release"),
    (_place, "sync_all"),
    (_place, "sync"),  # the model is in place
    (_one_model, "open_partial"),
    (_checkpoints, "write_json"),
)
"""What a process does before it is killed."""


def main() -> None:
    """Train twice, once alone, and print what happened."""
    alone, shared = (load_study_config(file) for file in sys.argv[1:3])
    seed, references = sys.argv[3], int(sys.argv[4])
    torch.set_num_threads(1)
    _lease.RENEW_S, _lease.STALE_S, _turns.POLL_S = 0.1, 3.0, 0.05
    with tempfile.TemporaryDirectory() as folder:
        logs = Path(folder)
        pid = _fork(lambda: _train(alone, references), logs / "alone")
        _, status = os.waitpid(pid, 0)
        assert status == 0, (logs / "alone").read_text()
        kills = _train_together(shared, seed, references, logs)
        (logs / "alone").unlink()
        said = {file.name: file.read_text() for file in sorted(logs.iterdir())}
    print(json.dumps({"kills": kills, "said": said}))


def _train_together(config: StudyConfig, seed: str, references: int, logs: Path) -> dict[str, int]:
    """Returns how often a process of each host was killed."""
    running: dict[int, tuple[str, int, int]] = {}

    def start(host: str, index: int, attempt: int) -> None:
        rng = random.Random(f"{seed} {host} {index} {attempt}")
        left = rng.randint(1, 25) if attempt < _KILLS[host] else _SURVIVES

        def work() -> None:
            socket.gethostname = lambda: host
            _kill_after(left)
            _train(config, references)

        running[_fork(work, logs / f"{host}-{index}-{attempt}")] = (host, index, attempt)

    kills = dict.fromkeys(_KILLS, 0)
    for host in _KILLS:
        for index in range(2):
            start(host, index, 0)
    while running:
        pid, status = os.wait()
        host, index, attempt = running.pop(pid)
        code = os.waitstatus_to_exitcode(status)
        if code == -signal.SIGKILL:
            kills[host] += 1
            if host == "first":
                start(host, index, attempt + 1)
        else:
            assert code == 0, (logs / f"{host}-{index}-{attempt}").read_text()
            # Its end means that all models are there.
            found = list((config.run_path / "models").rglob("training.json"))
            assert len(found) == 1 + len(config.components) + references, found
    return kills


def _fork(work: Callable[[], None], log: Path) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        with log.open("w") as stream:
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _train(config: StudyConfig, references: int) -> None:
    rename = Path.rename

    def say(line: str) -> None:
        print(line, flush=True)

    def told(path: Path, target: Path) -> Path:
        moved = rename(path, target)
        if path.suffix == ".new":
            say(f"placed {target.relative_to(config.run_path / 'models')}")
        return moved

    setattr(Path, "rename", told)  # noqa: B010
    train_study(config, references=references, device="cpu", progress=False, report=say)


def _kill_after(left: int) -> None:
    """Kill this process after so many moments."""
    moments = iter(range(1, left))

    def killing(function: Any) -> Any:
        def killed(*arguments: Any, **options: Any) -> Any:
            if next(moments, None) is None and left < _SURVIVES:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return killed

    for owner, name in _MOMENTS:
        setattr(owner, name, killing(getattr(owner, name)))


if __name__ == "__main__":
    main()
