"""What foreign code tries in the sandbox, and that nothing comes of it."""

from __future__ import annotations

import os
import signal
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from optuna_demix.errors import TaskError
from optuna_demix.scoring.sandbox import CallError, LostError, Sandbox
from optuna_demix.scoring.sandbox import client as client_module

from tests.scoring.sandbox.boxes import need_a_sandbox  # isort: skip

HONEST = "def add(a, b):\n    return a + b\nassert add(2, 3) == 5"

METRICS = """
import os

def passes(references, predictions):
    try:
        exec(predictions[0], {})
    except Exception as error:
        return {"passes": False, "why": type(error).__name__}
    return {"passes": True}

def odd():
    return object()

def long():
    return "x" * (1 << 25)

def where():
    return sorted(os.environ), os.getcwd(), os.listdir()

def broken():
    raise TypeError("as asked")
"""


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    path = tmp_path_factory.mktemp("metrics") / "metrics.py"
    path.write_text(METRICS)
    return path


@pytest.fixture(scope="module")
def box(module):
    need_a_sandbox()
    os.environ["DEMIX_TEST_SECRET"] = "hunter2"
    made = Sandbox([module.parent], lanes=4)
    made.start()
    yield made
    made.close()
    del os.environ["DEMIX_TEST_SECRET"]


def results(box, *programs, timeout=5.0):
    """What came of programs, as ``code_eval`` gives it."""
    asked = {"predictions": [[p] for p in programs], "references": [""] * len(programs)}
    _, found = box.call("", "", "code_eval", kwargs={**asked, "k": [1], "timeout": timeout})
    return [found[str(number)][0][1]["result"] for number in range(len(programs))]


def call(box, module, name, *args, **kwargs):
    return box.call(str(module), str(module.with_suffix("")), name, args, kwargs)


HARMLESS = {
    "honest": HONEST,
    "no environment": (
        "import os\nassert 'DEMIX_TEST_SECRET' not in os.environ\n"
        "assert all(name.isupper() and len(os.environ) < 14 for name in os.environ)"
    ),
    "no other process": (
        "import os\nassert os.getpid() == 1 and os.getppid() == 0\n"
        "assert not os.path.exists('/proc') and not os.path.exists('/sys')"
    ),
    "no files of the machine": (
        "import os\nfor path in ('/root', '/home', '/var', '/run', '/etc/passwd'):\n"
        "    try:\n        found = os.listdir(path)\n    except OSError:\n        continue\n"
        "    assert len(found) <= 1, found"
    ),
    "no file but three and two pipes": (
        "import os\nopen = []\nfor number in range(256):\n    try:\n"
        "        os.fstat(number)\n    except OSError:\n        continue\n"
        "    open.append(number)\n"
        "assert len(open) == 5, open"
    ),
    "an empty folder to write in": (
        "import os\nassert os.listdir('.') == []\n"
        "with open('mine', 'w') as file:\n    file.write('x')\nassert os.listdir('.') == ['mine']"
    ),
    "nothing else to write": (
        "import os\n"
        "for folder in ('/', '/usr', '/dev', '/etc', os.path.dirname(os.__file__)):\n"
        "    try:\n        open(folder + '/written', 'w')\n    except OSError:\n        continue\n"
        "    raise AssertionError(folder)"
    ),
    "no privileges": (
        "import ctypes\nlibc = ctypes.CDLL(None)\n"
        "assert libc.mount(b'x', b'/tmp', b'tmpfs', 0, b'') != 0\n"
        "assert libc.setuid(0) != 0 and libc.chroot(b'/tmp') != 0"
    ),
    "a great deal of output": (
        "import os\nfor _ in range(200):\n    print('x' * 10**6)\n"
        "for number in (0, 1, 2):\n    for _ in range(99):\n        os.write(number, b'x' * 10**6)"
    ),
    "a child that would say it again": "import posix\nif posix.fork() == 0:\n    pass",
}


def test_what_a_program_finds(box):
    found = dict(zip(HARMLESS, results(box, *HARMLESS.values(), timeout=20.0), strict=True))
    assert found == dict.fromkeys(HARMLESS, "passed")


ENDLESS = {
    "loops": "while True:\n    pass",
    "loops through its timer": (
        "while True:\n    try:\n        while True:\n            pass\n"
        "    except BaseException:\n        pass"
    ),
    "sleeps without signals": (
        "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32))\n"
        "import time\nwhile True:\n    time.sleep(1)"
    ),
    "forks for ever": (
        "import posix\nwhile True:\n    try:\n        posix.fork()\n"
        "    except OSError:\n        pass"
    ),
}
HOSTILE = {
    "leaves a child": (
        "import posix, time\nif posix.fork() == 0:\n    posix.setsid()\n    while True:\n"
        "        time.sleep(1)\nraise SystemExit"
    ),
    "allocates": "x = bytearray(1 << 33)",
    "allocates bit by bit": "x = []\nwhile True:\n    x.append(bytearray(1 << 24))",
    "fills the folder": (
        "with open('mine', 'wb') as file:\n    while True:\n        file.write(b'x' * 10**6)"
    ),
    "kills its parent and its group": "import posix\nposix.kill(posix.getppid(), 9)\nassert False",
    "kills everybody": "import posix\nposix.kill(-1, 9)\nassert False",
    "kills itself": "import ctypes\nctypes.string_at(0)",
    "ends early": "import os\nos._exit(0)",
    "exits": "import sys\nsys.exit(0)",
    "forges its result": (
        "import os\nfor number in range(256):\n"
        "    for text in (b'\"passed\"', b'{\"value\": 1}\\n'):\n"
        "        try:\n            os.write(number, text)\n"
        "        except OSError:\n            pass"
    ),
    "says what is no text": "raise Exception('\\ud800' * 10**6)",
    "makes namespaces of its own": (
        "import ctypes\nassert ctypes.CDLL(None).unshare(0x00020000) == 0  # CLONE_NEWNS"
    ),
}


def test_a_program_that_does_harm_fails_alone(box):
    before = box._process
    between = [program for each in HOSTILE.values() for program in (each, HONEST)]
    with ThreadPoolExecutor(1) as beside:
        endless = beside.submit(results, box, *ENDLESS.values(), timeout=0.5)
        found = results(box, *between, timeout=20.0)
    assert all(said.endswith("timed out") for said in endless.result())
    assert found[1::2] == ["passed"] * len(HOSTILE)
    assert [name for name, said in zip(HOSTILE, found[::2], strict=True) if said == "passed"] == []
    assert box._process is before


def test_no_network(box):
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as local:
        server.settimeout(0.0)
        local.bind("\0demix-test")
        local.listen()
        local.settimeout(0.0)
        port = server.getsockname()[1]
        assert results(
            box,
            f"import socket\nsocket.create_connection(('127.0.0.1', {port}), 1)",
            "import socket\nsocket.socket(socket.AF_UNIX).connect('\\0demix-test')",
        ) == [
            "failed: [Errno 101] Network is unreachable",
            "failed: [Errno 111] Connection refused",
        ]
        for listener in (server, local):
            with pytest.raises(BlockingIOError):
                listener.accept()


def test_secrets_beside_the_task(box, module):
    secret = module.parent.parent / "password"
    secret.write_text("hunter2")
    assert results(box, f"open({str(secret)!r})")[0].startswith("failed: [Errno 2]")
    assert results(box, f"open({str(module)!r}, 'a')")[0].startswith("failed: ")
    assert module.read_text() == METRICS


def test_a_metric_of_a_task(box, module):
    assert call(box, module, "passes", references=[""], predictions=[HONEST]) == {"passes": True}
    names, folder, found = call(box, module, "where")
    assert "DEMIX_TEST_SECRET" not in names and folder == "/box" and found == []


@pytest.mark.parametrize(
    ("program", "error"),
    [
        ("import os\nos._exit(0)", LostError),
        (
            "import os\nfor n in range(64):\n  try: os.write(n, b'0' * 64)\n  except OSError: 0",
            LostError,
        ),
        ("raise SystemExit", CallError),
    ],
)
def test_a_metric_that_is_lost(box, module, program, error):
    with pytest.raises(error):
        call(box, module, "passes", references=[""], predictions=[program])
    assert call(box, module, "passes", references=[""], predictions=[HONEST]) == {"passes": True}


def test_a_metric_that_takes_too_long(box, module):
    with pytest.raises(LostError, match="timed out"):
        box.call(str(module), "metrics", "passes", [[""], ["while True: 0"]], seconds=0.3)


def test_answers_that_cannot_be_given(box, module):
    with pytest.raises(CallError, match="TypeError: object is not JSON"):
        call(box, module, "odd")
    with pytest.raises(CallError, match="its result is too long"):
        call(box, module, "long")
    with pytest.raises(CallError, match="TypeError: as asked"):
        call(box, module, "broken")
    with pytest.raises(CallError, match="AttributeError"):
        call(box, module, "nothing")
    with pytest.raises(TaskError, match="passes: the sandbox cannot be given its arguments"):
        call(box, module, "passes", object())


def test_it_starts_again_when_it_has_died(box, module):
    before = box._process
    os.kill(before.pid, signal.SIGKILL)
    assert results(box, HONEST) == ["passed"]
    assert box._process is not before


def test_it_ends_with_the_worker(box):
    made = Sandbox([])
    made.start()
    process = made._process
    process.stdin.close()
    assert process.wait(30) == 0
    del made


def test_a_machine_that_cannot(monkeypatch, tmp_path):
    monkeypatch.setattr(client_module.sys, "executable", "/bin/false")
    with pytest.raises(TaskError) as said:
        Sandbox([]).start()
    assert str(said.value) == (
        "this machine cannot confine the code that a model writes (it does not start); allow it "
        "namespaces (Linux 5.14 or later, user namespaces or root), or, if that code may do all "
        "that the worker may, set confirm_run_unsafe_code_unsandboxed to true"
    )
