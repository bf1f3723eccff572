"""``optuna-demix serve``: a database for many workers, through gRPC."""

from __future__ import annotations

import argparse

from optuna_demix.cli._console import quiet_optuna, say
from optuna_demix.cli._options import positive_number, whole_number


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    help_line = "serve a database to many workers through Optuna's gRPC proxy"
    parser = commands.add_parser(
        "proxy",
        help=help_line,
        description=f"{help_line[0].upper()}{help_line[1:]}.",
        epilog="example:\n  optuna-demix proxy --storage postgresql://user@host/db --port 13000",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--storage", metavar="URL", help="database; default: OPTUNA_STORAGE")
    parser.add_argument("--host", default="localhost", help="address to listen on")
    parser.add_argument("--port", type=whole_number, default=13000, help="port to listen on")
    parser.add_argument(
        "--threads", type=positive_number, default=10, metavar="N", help="calls served at once"
    )
    parser.set_defaults(run=_proxy)


def _proxy(arguments: argparse.Namespace) -> int:
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
        say(f"proxy at grpc://{arguments.host}:{port}")
        ended.wait()
    return 0
