from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from optuna_demix.storage.server import serve
from tests.storage import crew
from tests.storage.servers import mariadb


@pytest.fixture(scope="session")
def new_mysql_database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], str]]:
    with mariadb(tmp_path_factory.mktemp("mariadb")) as new_database:
        yield new_database


@pytest.fixture
def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a storage of the kind that a test names, with an empty study in it."""
    kind = request.param
    if kind == "sqlite":
        url = f"sqlite:///{tmp_path / 'mix.db'}"
        crew.new_study(url)
        yield url
    elif kind == "postgresql":
        url = request.getfixturevalue("postgresql").new_database()
        crew.new_study(url)
        yield url
    elif kind == "mysql":
        url = request.getfixturevalue("new_mysql_database")()
        crew.new_study(url.replace("mysql:", "mysql+pymysql:"))
        yield url
    elif kind == "grpc":
        pytest.importorskip("grpc", reason="grpcio is not installed")
        database = request.getfixturevalue("postgresql").new_database()
        crew.new_study(database)
        with serve(database, host="127.0.0.1", port=0, n_threads=10) as port:
            yield f"grpc://127.0.0.1:{port}"
    else:
        url = str(tmp_path / "mix.log")
        crew.new_study(url, journal=True)
        yield url
