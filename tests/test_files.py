"""Files are written whole; what is no plain file is written to and stays what it is."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from optuna_demix._files import write_new, write_whole


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    file.write_text("old")
    before = file.stat().st_ino
    write_whole(file, "new")
    assert file.read_text() == "new"
    assert file.stat().st_ino != before
    assert list(tmp_path.iterdir()) == [file]


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    # A pipe that was replaced by a file would never be opened at its other end.
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()
    write_whole(pipe, "through")
    still = stat.S_ISFIFO(pipe.stat().st_mode)
    if still:
        reader.join()
    assert still
    assert read == ["through"]
    assert list(tmp_path.iterdir()) == [pipe]


@pytest.mark.parametrize("there", [True, False], ids=["a file", "no file yet"])
def test_a_symlink_is_written_through(tmp_path: Path, there: bool) -> None:
    (tmp_path / "far").mkdir()
    target, link = tmp_path / "far" / "real.json", tmp_path / "link.json"
    if there:
        target.write_text("old")
    link.symlink_to(Path("far", "real.json"))
    write_whole(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "far", target, link]


@pytest.mark.parametrize("kind", ["pipe", "file"])
def test_standard_output_is_written_in_turn(tmp_path: Path, kind: str) -> None:
    program = (
        "from pathlib import Path\n"
        "from optuna_demix._files import write_whole\n"
        "print('before')\n"
        f"write_whole(Path({str(tmp_path / 'link')!r}), 'between\\n')\n"
        "print('after')\n"
    )
    (tmp_path / "link").symlink_to("/proc/self/fd/1")  # as /dev/stdout is
    if not Path("/proc/self/fd/1").exists():
        pytest.skip("no /proc here")
    command = [sys.executable, "-c", program]
    if kind == "pipe":
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    else:
        with open(tmp_path / "out.txt", "w") as stream:
            subprocess.run(command, stdout=stream, check=True)
        out = (tmp_path / "out.txt").read_text()
    assert out == "before\nbetween\nafter\n"
    assert (tmp_path / "link").is_symlink()


def test_nothing_is_left_behind_by_a_failure(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        write_whole(tmp_path / "folder", "new")
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]


def test_a_new_file_replaces_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "study.yaml"
    write_new(file, "mine")
    for there in (True, False):  # the second time it appears only after it was looked for
        if not there:
            monkeypatch.setattr(os.path, "lexists", lambda path: False)
        with pytest.raises(FileExistsError):
            write_new(file, "yours")
        assert file.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [file]
