"""``optuna-demix serve``: a database for many workers, through gRPC."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from optuna_demix.cli._console import quiet_optuna, say
from optuna_demix.cli._next import say_next
from optuna_demix.cli._options import add_command, positive_number, whole_number

if TYPE_CHECKING:
    from optuna_demix.cli._options import Commands


def add_parser(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        "serve",
        _serve,
        "serve a database to many workers through Optuna's gRPC server",
        "optuna-demix serve --storage postgresql://user@host/db --port 13000",
        takes_study=False,
    )
    parser.add_argument("--storage", metavar="URL", help="database; default: OPTUNA_STORAGE")
    parser.add_argument("--host", default="localhost", help="address to listen on")
    parser.add_argument("--port", type=whole_number, default=13000, help="port to listen on")
    parser.add_argument(
        "--threads", type=positive_number, default=10, metavar="N", help="calls served at once"
    )


def _serve(arguments: argparse.Namespace) -> int:
    import signal
    import threading

    from optuna_demix.storage.connection import storage_url
    from optuna_demix.storage.server import serve

    quiet_optuna(quiet=True)
    ended = threading.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda number, frame: ended.set())
    with serve(
        storage_url(arguments.storage),
        host=arguments.host,
        port=arguments.port,
        n_threads=arguments.threads,
    ) as port:
        url = f"grpc://{arguments.host}:{port}"
        say(f"serving at {url}")
        say_next(
            arguments,
            f"optuna-demix worker study.yaml --storage {url} --study-name mix --n-trials 64",
        )
        ended.wait()
    say("stopped serving")
    return 0
