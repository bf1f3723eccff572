"""Programs that are forked from a process which has imported torch and lm-eval.

A command that imports them for itself takes seconds, and the tests call dozens. A request comes
over a socket, with arguments, folder, environment and open files; its answer is the exit status.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Program = Callable[[list[str]], int]

_ROOT = Path(__file__).parents[1]
ENVIRONMENT = {  # of the server
    "OMP_NUM_THREADS": "1",  # a pool of threads would not outlive a fork
    "HF_HUB_OFFLINE": "1",  # read when it is imported
    "HF_DATASETS_OFFLINE": "1",
    "PYTHONHASHSEED": "1",  # sets have an order of their own
}
_PRELOADED = (
    "alembic.command",
    "alembic.config",
    "alembic.migration",
    "evaluate",
    "lightgbm",
    "lm_eval.evaluator",
    "optuna.cli",
    "optuna.storages._rdb.models",
    "optuna_dashboard",
    "plotly.io",
    "plotly.subplots",
    "scipy.io",
    "scipy.optimize",
    "sqlalchemy.dialects.sqlite",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.llama.modeling_llama",
    "transformers.trainer",
)


def run_forked(
    arguments: Sequence[str], *, cwd: Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run one of the programs as :func:`subprocess.run` would, with its output.

    A program that a signal has ended has the status that a shell gives it: 128 and its number.
    """
    with (
        tempfile.TemporaryFile("w+b") as out,
        tempfile.TemporaryFile("w+b") as err,
        open(os.devnull, "rb") as nothing,
        socket.socket(socket.AF_UNIX) as server,
    ):
        server.connect(_address())
        socket.send_fds(server, [b"f"], [nothing.fileno(), out.fileno(), err.fileno()])
        server.sendall(json.dumps([list(arguments), str(cwd), dict(environment)]).encode())
        server.shutdown(socket.SHUT_WR)
        (status,) = server.recv(1)
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read().decode())
    return subprocess.CompletedProcess(list(arguments), status, *texts)


def launcher() -> str:
    """A shell command that runs the program whose name follows."""
    client = _ROOT / "tests" / "client.py"
    return f"env PROGRAMS={_address()} {sys.executable} -SE {client}"


@functools.cache
def _address() -> str:
    """The socket of a server of this process's own, started when it is first used."""
    folder = tempfile.TemporaryDirectory()  # a socket's path must be short
    path = f"{folder.name}/programs"
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.programs", path],
        cwd=_ROOT,
        env={**os.environ, **ENVIRONMENT},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdin is not None and server.stdout is not None
    assert server.stdout.readline() == "ready\n"
    atexit.register(folder.cleanup)
    atexit.register(server.wait)
    atexit.register(server.stdin.close)  # first: it ends then
    return path


def serve(path: str, programs: Mapping[str, Program]) -> None:
    """Fork a process for each request that comes to a socket, until standard input ends."""
    gc.disable()
    for module in (*_PRELOADED, *_own_modules()):
        importlib.import_module(module)
    _fill_tables()
    gc.freeze()  # else each child walks over all of it, and so copies its memory
    gc.enable()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        print("ready", flush=True)
        while sys.stdin not in select.select([server, sys.stdin], [], [])[0]:
            connection, _ = server.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                server.close()
                _answer(connection, programs)
                os._exit(0)
            connection.close()


def _own_modules() -> Iterator[str]:
    import optuna_demix

    for module in pkgutil.walk_packages(optuna_demix.__path__, "optuna_demix."):
        if "scripts" not in module.name.split(".") and not module.name.endswith("__main__"):
            yield module.name


def _fill_tables() -> None:
    """Make what transformers makes when it first looks at a checkpoint."""
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    get_checkpoint_conversion_mapping("llama")


def _answer(connection: socket.socket, programs: Mapping[str, Program]) -> None:
    """Run what is asked for in a process of its own, which may become another program."""
    _, files, _, _ = socket.recv_fds(connection, 1, 3)
    with connection.makefile("rb") as stream:
        arguments, folder, environment = json.load(stream)
    child = os.fork()
    if child == 0:
        connection.close()
        for own, given in enumerate(files):
            os.dup2(given, own)
            os.close(given)
        _run(programs[Path(arguments[0]).name], arguments, folder, environment)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    connection.send(bytes([code if code >= 0 else 128 - code]))


def _run(program: Program, arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = list(arguments)
    try:
        status: Any = program(arguments[1:])
    except SystemExit as stopped:
        status = stopped.code
    except BaseException:
        traceback.print_exc()
        status = 1
    if isinstance(status, str):
        print(status, file=sys.stderr)
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status or 0)
