"""Keep the password of a storage out of the list of processes."""

from __future__ import annotations

import os
import sys

TYPED_ENV = "OPTUNA_DEMIX_STORAGE_WAS_TYPED"
"""Environment variable: the storage of the environment came from the command line."""


def hide_password() -> None:
    """Start this process again without the storage URL in its arguments, which ``ps`` shows.

    The URL goes into the environment, which other users cannot read. Nothing happens where it
    has no password.
    """
    from optuna_demix.storage.connection import STORAGE_ENV
    from optuna_demix.storage.secrets import mask_url

    rest: list[str] = []
    urls: list[str] = []
    words = iter(sys.argv[1:])
    for word in words:
        if word == "--storage":
            following = next(words, None)
            if following is None:
                return  # the parser says that the URL is missing
            urls.append(following)
        elif word.startswith("--storage="):
            urls.append(word.partition("=")[2])
        else:
            rest.append(word)
    if all(mask_url(url) == url for url in urls):
        return
    command = [sys.executable, "-m", "optuna_demix", *rest]
    # Of an option that is given twice the last one counts.
    environment = {**os.environ, STORAGE_ENV: urls[-1], TYPED_ENV: "1"}
    os.execve(sys.executable, command, environment)
