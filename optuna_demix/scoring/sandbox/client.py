"""``Sandbox``: the worker's end of the sandbox."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from optuna_demix.errors import TaskError
from optuna_demix.scoring.sandbox.server import READY, SELF_TEST

SANDBOX_VERSION = 1
"""Raised whenever a change of the sandbox may change the score of an honest program."""

CALL_S = 60.0
"""Seconds of one call of a metric, the programs that it has run not counted."""

_MOST_LANES = 16
_START_S = 60.0
_END_S = 5.0

# The jail shows this folder alone of the package, so that its parents are empty here.
_BOOT = """
import json, sys, types
given = json.loads(sys.argv[1])
name = ""
for part in "optuna_demix.scoring.sandbox".split("."):
    name = f"{name}.{part}".strip(".")
    sys.modules[name] = package = types.ModuleType(name)
    package.__path__ = [given["package"]]
from optuna_demix.scoring.sandbox.server import main
main(given["root"], given["visible"], given["libraries"], given["lanes"])
"""

_ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "HOME": "/box",
    "TMPDIR": "/box",
    "PYTHONHASHSEED": "0",  # the order of sets is the same for all workers
    "HF_ALLOW_CODE_EVAL": "1",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}
_TEST = {"file": "", "module": "", "name": SELF_TEST, "args": [], "kwargs": {}, "seconds": CALL_S}
_KEPT = ("LD_LIBRARY_PATH", "TZ")


class LostError(Exception):
    """A call has no answer: what it ran was killed, or took too long."""


class CallError(Exception):
    """A call raised an error.

    Args:
        kind: The name of its class.
        said: Its message.
    """

    def __init__(self, kind: str, said: str) -> None:
        super().__init__(f"{kind}: {said}" if said else kind)
        self.kind = kind


class Sandbox:
    """Calls functions of tasks where the code that they run can do no harm.

    Every call, and every program that ``code_eval`` is given, has a process of its own, in Linux
    namespaces without network, without other processes and with an empty folder in memory. It
    sees the system's libraries, Python's and the tasks' folders, to be read, and no variable of
    the worker's environment. Answers come as JSON.

    Started by the first call, and again where it has died. May be used from several threads.

    Args:
        folders: Those of the tasks' modules.
        lanes: Calls, and programs, that run at the same time; by default one for each processor.
    """

    def __init__(self, folders: Iterable[str | Path], *, lanes: int | None = None) -> None:
        self.lanes = lanes or min(_MOST_LANES, len(os.sched_getaffinity(0)))
        self._folders = [str(folder) for folder in folders]
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._waiting: dict[int, Future[Any]] = {}
        self._count = 0

    def start(self) -> None:
        """Start it, unless it runs, and try it.

        Raises:
            TaskError: If the platform does not let it.
        """
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                return
            self._start()
        try:
            found = self._ask(_TEST).result()
        except TaskError as error:
            raise _refused(str(error)) from None
        if found.get("value") != ["passed", "failed: "]:
            raise _refused(f"two small programs gave {found}")

    def call(
        self,
        file: str,
        module: str,
        name: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        seconds: float = CALL_S,
    ) -> Any:
        """Call a function of a module.

        Args:
            file: The file of the module; empty for what the sandbox has itself.
            module: How the module is called.
            name: The function.
            args: Its arguments, which JSON can hold.
            kwargs: Those with names.
            seconds: After which it is ended.

        Returns:
            What it returns, as JSON holds it.

        Raises:
            LostError: If it does not answer.
            CallError: If it raises.
            TaskError: If an argument cannot be sent, or the sandbox cannot be started or has died
                twice.
        """
        asked = {
            "file": file,
            "module": module,
            "name": name,
            "args": list(args),
            "kwargs": dict(kwargs or {}),
            "seconds": seconds,
        }
        try:
            json.dumps(asked)
        except (TypeError, ValueError) as error:
            raise TaskError(
                f"{name}: the sandbox cannot be given its arguments: {error}"
            ) from None
        self.start()
        try:
            answer = self._ask(asked).result()
        except TaskError:
            self.start()
            answer = self._ask(asked).result()
        if not isinstance(answer, dict) or not {"value", "error", "lost"} & answer.keys():
            raise LostError("its answer makes no sense")
        if "lost" in answer:
            raise LostError(str(answer["lost"]))
        if "error" in answer:
            raise CallError(str(answer["error"]), str(answer.get("said", "")))
        return answer["value"]

    def close(self) -> None:
        """End it."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __del__(self) -> None:
        self.close()

    def _ask(self, asked: Mapping[str, Any]) -> Future[Any]:
        future: Future[Any] = Future()
        with self._lock:
            self._count += 1
            number = self._count
            process, waiting = self._process, self._waiting
            assert process is not None and process.stdin is not None
            waiting[number] = future
            try:
                process.stdin.write(json.dumps({"id": number, **asked}).encode() + b"\n")
                process.stdin.flush()
            except OSError:
                pass  # whoever listens to it will say so
        if process.poll() is not None:
            _fail(waiting, "the sandbox has ended")
        return future

    def _start(self) -> None:
        packages = [
            path
            for path in sys.path
            if Path(path).name in ("site-packages", "dist-packages") and Path(path).is_dir()
        ]
        own = str(Path(__file__).parent)
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        libraries = [
            p for p in kept.get("LD_LIBRARY_PATH", "").split(":") if Path(p).is_dir() and p
        ]
        visible = [sys.prefix, sys.base_prefix, sys.exec_prefix, *packages, *libraries, own]
        with tempfile.TemporaryDirectory(prefix="sandbox-") as root:
            given = {
                "package": own,
                "root": root,
                "visible": [*visible, *self._folders],
                "libraries": packages,
                "lanes": self.lanes,
            }
            process = subprocess.Popen(
                [sys.executable, "-s", "-S", "-B", "-P", "-c", _BOOT, json.dumps(given)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**_ENVIRONMENT, **kept},
                cwd="/",
                start_new_session=True,
            )
            assert process.stdout is not None
            said = _parsed(process.stdout.readline())
        if said != READY:
            process.kill()
            process.wait()
            raise _refused(str(said.get("refused", "it does not start")))
        self._process, self._waiting = process, {}
        # Does not hold the sandbox itself, which would then live as long as the worker.
        threading.Thread(target=_listen, args=(process, self._waiting), daemon=True).start()


def _listen(process: subprocess.Popen[bytes], waiting: dict[int, Future[Any]]) -> None:
    """Hand answers on until there are none any more."""
    assert process.stdout is not None
    why = "the sandbox has ended"
    for line in process.stdout:
        said = _parsed(line)
        why = str(said.get("refused", why))
        future = waiting.pop(said.get("id", 0), None)
        if future is not None:
            future.set_result(said.get("answer"))
    process.wait()
    _fail(waiting, why)


def _fail(waiting: dict[int, Future[Any]], why: str) -> None:
    while waiting:
        try:
            _, future = waiting.popitem()
        except KeyError:
            return  # the other thread was faster
        future.set_exception(TaskError(why))


def _refused(why: str) -> TaskError:
    return TaskError(
        f"this machine cannot confine the code that a model writes ({why}); allow it namespaces "
        "(Linux 5.14 or later, user namespaces or root), or, if that code may do all that the "
        "worker may, set confirm_run_unsafe_code_unsandboxed to true"
    )


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
