"""Which storage a URL means."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from optuna_demix.errors import StudyError
from optuna_demix.storage.connection import connect, storage_url

PASSWORD = "ge:h@ei/m"


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("nowhere.log", ["no such journal", "JournalFileBackend"]),
        ("nowhere.journal", ["no such journal"]),
        ("grpc://host", ["grpc://host:port"]),
        ("grpc://host:many", ["grpc://host:port"]),
        ("grpc://host:1/path", ["grpc://host:port"]),
        ("redis://:geheim@127.0.0.1:1", ["redis", "***"]),
        ("nowhere", ["not a database URL", "grpc://", ".log"]),
        ("mysql://me:geheim@127.0.0.1:9/mix", ["me:***@127.0.0.1"]),
    ],
)
def test_a_wrong_storage_is_one_line(
    url: str, named: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StudyError) as refused:
        connect(url)
    line = str(refused.value)
    assert all(word in line for word in named), line
    assert "geheim" not in line and "\n" not in line
    assert list(tmp_path.iterdir()) == []


def test_a_url_may_stand_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(f"postgresql://me:{PASSWORD}@host/mix\n")
    assert storage_url(f"@{file}") == f"postgresql://me:{PASSWORD}@host/mix"
    with pytest.raises(StudyError, match="cannot be read"):
        storage_url(f"@{tmp_path / 'none'}")
    file.write_text("\n")
    with pytest.raises(StudyError, match="one line"):
        storage_url(f"@{file}")


def test_without_a_storage_nothing_is_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPTUNA_STORAGE", raising=False)
    with pytest.raises(StudyError, match="OPTUNA_STORAGE"):
        storage_url(None)
    monkeypatch.setitem(os.environ, "OPTUNA_STORAGE", "sqlite:///mix.db")
    assert storage_url(None) == "sqlite:///mix.db"
