"""Journal files: which are taken, how a torn one is mended, what is said of a damaged one."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from optuna_demix.errors import StudyError
from optuna_demix.storage.connection import connect
from optuna_demix.storage.journal import open_journal
from tests.storage import crew


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """A journal of a study with three trials."""
    path = tmp_path / "mix.log"
    crew.new_study(str(path), journal=True)
    study = crew.load(open_journal(path))
    study.optimize(lambda trial: [trial.suggest_float("x", 0, 1)] * 2, n_trials=3)
    return path


def test_a_journal_is_known_by_its_file_as_by_optuna(tmp_path: Path) -> None:
    for name in ("mix.log", "mix"):
        path = str(tmp_path / name)
        crew.new_study(path, journal=True)
        assert crew.load(connect(path)).study_name == "mix"
    database = tmp_path / "mix.db"
    crew.new_study(f"sqlite:///{database}")
    with pytest.raises(StudyError, match="write sqlite:///"):
        connect(str(database))


@pytest.mark.parametrize(
    "content", [b"not\na journal\n", b'{"a": 1}\n{"b": 2}\n', b"[1]\n\n", b"\xff\xfe\n\xff\n"]
)
def test_another_file_is_no_journal(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "text.log"
    path.write_bytes(content)
    with pytest.raises(StudyError, match=r"text.log' is not a journal of Optuna; correct"):
        connect(str(path))
    assert path.read_bytes() == content


def test_a_torn_journal_mends_itself(journal: Path) -> None:
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code": 4, "worker_id"')
    study = optuna.load_study(study_name="mix", storage=open_journal(journal))
    study.ask()
    assert journal.read_bytes().startswith(whole)
    # Everybody can read on, those without our lock as well.
    plain = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(journal))
    )
    assert len(optuna.load_study(study_name="mix", storage=plain).trials) == 4


@pytest.mark.parametrize(
    "damage",
    [b"\0" * 40 + b"\n", b"\xff\xfe\n", b'{"op_code": 4, "wor', b"[]\n", b'{"a": 1}\n', b"\n",
     b'{"op_code": 99, "worker_id": "w"}\n', b'{"op_code": ["a"], "worker_id": "w"}\n'],
    ids=["zeros", "bytes", "torn", "list", "object", "blank", "operation", "type"],
)  # fmt: skip
@pytest.mark.parametrize("number", [1, 5, 8])
def test_a_damaged_journal_is_told_from_another_file(
    journal: Path, damage: bytes, number: int
) -> None:
    """It was called no journal, as if the path were wrong, or was a raw error."""
    lines = journal.read_bytes().splitlines(keepends=True)
    assert len(lines) == 10
    lines[number - 1] = damage
    journal.write_bytes(b"".join(lines))
    with pytest.raises(StudyError) as refused:
        connect(str(journal))
    line = str(refused.value)
    assert f"mix.log' is damaged in line {number}" in line and "restore a copy" in line
    assert "\n" not in line
    if number > 1:  # what it proposes helps
        assert f"head -n {number - 1} " in line
        journal.write_bytes(b"".join(lines[: number - 1]))
        assert crew.load(connect(str(journal))).study_name == "mix"


def test_damage_is_found_by_who_has_read_the_beginning_before(journal: Path) -> None:
    study = crew.load(connect(str(journal)))
    n_trials = len(study.trials)
    with journal.open("ab") as stream:
        stream.write(b"half a rec")
    other = optuna.storages.journal.JournalFileBackend(str(journal))  # not one that mends
    for _ in range(2):
        other.append_logs([{"op_code": 4, "worker_id": "other", "study_id": 0}])
    with pytest.raises(StudyError, match="damaged in line 11"):
        study.get_trials()
    assert n_trials == 3
