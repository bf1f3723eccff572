"""Progress: bars on a terminal, lines elsewhere."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import struct
import sys
import termios
import threading
from types import SimpleNamespace

import pytest

from optuna_demix import _progress
from optuna_demix._progress import Report
from optuna_demix._wording import duration


class _Terminal:
    """A terminal in the place of stderr within the block; ``shown`` is what it has shown."""

    shown = ""

    def __enter__(self) -> _Terminal:
        self._reading, writing = pty.openpty()
        fcntl.ioctl(writing, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))
        self._before, sys.stderr = sys.stderr, os.fdopen(writing, "w")
        return self

    def __exit__(self, *_: object) -> None:
        sys.stderr.close()
        sys.stderr = self._before
        shown = b""
        with contextlib.suppress(OSError):  # the end, which comes when all has been read
            while chunk := os.read(self._reading, 1 << 16):  # what has arrived so far
                shown += chunk
        self.shown = shown.decode()
        os.close(self._reading)


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def test_a_terminal_gets_a_bar_and_lines_beside_it() -> None:
    report = Report(_say, bars=True)
    with _Terminal() as terminal, report.step("build", unit="block", total=4) as step:
        step.update(2)
        step.note("disk slow")
        report("a line")
        step.advance(2)
    assert "\rbuild: 100%" in terminal.shown and "4/4" in terminal.shown
    assert "disk slow" in terminal.shown and "a line\r\n" in terminal.shown


def test_a_step_without_a_count_shows_its_time() -> None:
    with _Terminal() as terminal, Report(_say, bars=True).step("self-test"):
        pass
    assert "\rself-test: 00:00" in terminal.shown


def test_elsewhere_there_are_lines_only(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(_say, bars=True)
    with report.step("build", unit="block", total=4) as step:
        report("a line")
        step.update(4)
    assert capsys.readouterr().err == "build\na line\n"


def test_without_bars_a_terminal_gets_lines() -> None:
    with _Terminal() as terminal, Report(_say).step("build", unit="block", total=4) as step:
        step.update(4)
    assert terminal.shown == "build\r\n"


def test_long_work_says_how_far_it_is_and_how_long_it_took(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_progress, "_LINE_EVERY_S", 0.01)
    monkeypatch.setattr(_progress, "_LONG_S", 0.0)
    monkeypatch.setattr(_progress, "time", SimpleNamespace(monotonic=lambda: 0.0))
    lines: list[str] = []
    said = threading.Event()

    def say(line: str) -> None:
        lines.append(line)
        if "2 of 4 blocks, half done" in line:
            said.set()

    with Report(say).step("build", unit="block", total=4) as step:
        step.update(2)
        step.note("half done")
        assert said.wait(30)
        step.update(4)
    assert lines[0] == "build" and lines[-1] == "build: 4 blocks in 0 s"
    assert any(line.endswith("about 0 s left") for line in lines)


def test_work_that_fails_does_not_say_that_it_was_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_progress, "_LONG_S", 0.0)
    lines: list[str] = []
    with pytest.raises(ValueError), Report(lines.append).step("build"):
        raise ValueError
    assert lines == ["build"]


def test_nobody_is_told_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    before = threading.active_count()
    with Report().step("build", unit="block") as step:
        step.advance()
        assert threading.active_count() == before
    assert Report.of(None).is_silent and capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59.4, "59 s"), (125, "2 min 5 s"), (12000, "3 h 20 min")],
)
def test_times_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words
