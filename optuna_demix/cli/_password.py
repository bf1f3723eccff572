"""Keep the password of a storage out of the list of processes."""

from __future__ import annotations

import os
import sys


def hide_password() -> None:
    """Start this process anew without the storage URL in its arguments, which ``ps`` shows.

    The URL goes into the environment, which other users cannot read. Nothing happens where it
    has no password.
    """
    from optuna_demix.storage.connection import STORAGE_ENV
    from optuna_demix.storage.secrets import mask_url

    arguments, url = list(sys.argv[1:]), None
    for i, argument in enumerate(arguments):
        if argument == "--storage" and i + 1 < len(arguments):
            url, removed = arguments[i + 1], slice(i, i + 2)
        elif argument.startswith("--storage="):
            url, removed = argument.partition("=")[2], slice(i, i + 1)
        else:
            continue
        break
    if url is None or mask_url(url) == url:
        return
    del arguments[removed]
    command = [sys.executable, "-m", "optuna_demix", *arguments]
    os.execve(sys.executable, command, {**os.environ, STORAGE_ENV: url})
