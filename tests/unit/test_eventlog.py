"""The log: a line each, never a cost to the caller, and readers that keep what they hold."""

import logging
import os
import sys
from pathlib import Path

import pytest

from fsmount.errors import MachineLacks
from fsmount.eventlog import FileEventLog, LogHandler
from fsmount.model import OpId, RemotePath
from tests.support.clock import ManualClock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def log(path: Path) -> FileEventLog:
    return FileEventLog(path, ManualClock())


def test_a_line_has_its_fields_in_order(log: FileEventLog, path: Path) -> None:
    log.note("op.dead", "422: no", op=OpId("op_1"), path=RemotePath("/a/x"), level="warning")
    log.note("mount")
    assert path.read_text() == (
        "2023-11-14T22:13:20.000Z warning op.dead op_1 /a/x 422: no\n2023-11-14T22:13:20.000Z info mount - -\n"
    )


def test_a_name_cannot_forge_a_line_or_a_field(log: FileEventLog, path: Path) -> None:
    name = b"/a/x y\n2023 info\x1b\xff".decode("utf-8", "surrogateescape")
    log.note("op.dead", "first\nsecond", path=RemotePath(name))
    (line,) = path.read_text().splitlines()
    assert line.endswith("op.dead - /a/x\\x20y\\n2023\\x20info\\x1b\\xff first\\nsecond")


def test_it_is_private_and_continues_a_former_log(log: FileEventLog, path: Path) -> None:
    log.note("first")
    log.close()
    again = FileEventLog(path, ManualClock())
    again.note("second")
    assert [line.split()[2] for line in path.read_text().splitlines()] == ["first", "second"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_torn_last_line_is_ended(path: Path) -> None:
    path.write_text("torn")
    FileEventLog(path, ManualClock()).note("whole")
    assert path.read_text().splitlines()[0] == "torn"
    assert path.read_text().splitlines()[1].split()[2] == "whole"


def test_debug_lines_appear_only_when_asked_for(path: Path) -> None:
    FileEventLog(path, ManualClock()).note("hidden", level="debug")
    FileEventLog(path, ManualClock(), debug=True).note("shown", level="debug")
    assert [line.split()[2] for line in path.read_text().splitlines()] == ["shown"]


def test_past_its_limit_a_new_file_begins_with_the_newest_half(path: Path) -> None:
    log = FileEventLog(path, ManualClock(), limit=4000)
    reader = log.open()
    for number in range(40):
        log.note("old", f"{number} " + "x" * 60)
    before = reader.read(0, 1 << 20)
    for number in range(40, 60):
        log.note("new", f"{number} " + "x" * 60)
    assert log.current.generation > reader.generation
    assert reader.read(0, 1 << 20).startswith(before)
    kept = path.read_bytes()
    assert len(kept) <= 4000
    assert kept.endswith(b"59 " + b"x" * 60 + b"\n")
    lines = kept.decode().splitlines()
    assert all(line.startswith("2023-") for line in lines)
    numbers = [int(line.split()[5]) for line in lines]
    assert numbers == list(range(numbers[0], 60))
    assert log.current.size == len(kept)
    reader.close()


def test_a_reader_keeps_the_old_file_and_its_end(path: Path) -> None:
    log = FileEventLog(path, ManualClock(), limit=500)
    log.note("first")
    reader = log.open()
    while log.current.generation == reader.generation:
        log.note("more", "x" * 100)
    size = reader.size
    log.note("later")
    assert reader.size == size == len(reader.read(0, 1 << 20))
    assert reader.read(size, 100) == b""
    reader.close()
    assert sorted(os.listdir(path.parent)) == ["events", "log"]


def test_its_time_is_that_of_the_last_line(path: Path) -> None:
    clock = ManualClock()
    log = FileEventLog(path, clock)
    clock.advance(10)
    log.note("one")
    clock.advance(10)
    assert log.current.mtime == clock.now() - 10


def test_a_full_disk_costs_the_line_not_the_caller(log: FileEventLog, path: Path) -> None:
    resource = pytest.importorskip("resource")
    signal = pytest.importorskip("signal")
    former, limits = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    log.note("before")
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, limits[1]))
        log.note("lost")
        log.note("lost.too")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, former)
    log.note("after")
    lines = path.read_text().splitlines()
    assert lines[0].endswith("info before - -")
    assert lines[-1].endswith("info after - -")
    assert "lost.too" not in path.read_text()


def test_after_close_nothing_is_written_anywhere(log: FileEventLog, path: Path, tmp_path: Path) -> None:
    log.close()
    with (tmp_path / "other").open("wb"):  # takes the descriptor's number
        log.note("late")
    assert (tmp_path / "other").read_bytes() == b""
    assert path.read_bytes() == b""


@pytest.mark.parametrize("where", ["missing/log", "."])
def test_a_log_that_cannot_be_written_says_what_to_do(tmp_path: Path, where: str) -> None:
    with pytest.raises(MachineLacks, match="log") as raised:
        FileEventLog(tmp_path / where, ManualClock())
    assert "--log" in str(raised.value.hint)


def test_a_fifo_is_no_log_and_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(MachineLacks, match="regular"):
        FileEventLog(tmp_path / "fifo", ManualClock())


def test_an_echo_that_nobody_reads_does_not_block(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    with open(reading, "rb"), open(writing, "w") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        log = FileEventLog(path, ManualClock(), echo=True)
        for _ in range(200):
            log.note("full", "x" * 2000)
    assert len(path.read_text().splitlines()) == 200


def test_an_echo_whose_reader_left_does_no_harm(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        FileEventLog(path, ManualClock(), echo=True).note("alone")
    assert "alone" in path.read_text()


def logged(log: FileEventLog, debug: bool) -> None:
    logger = logging.getLogger("some.library")
    logger.handlers = [LogHandler(log, debug=debug)]
    logger.propagate = False
    logger.info("not this")
    try:
        raise ValueError("broken\nthing")
    except ValueError:
        logger.exception("it failed for %s", "x")
    logger.warning("%d", "no number")


def test_warnings_of_the_logging_module_go_there_without_a_traceback(log: FileEventLog, path: Path) -> None:
    logged(log, debug=False)
    first, second = path.read_text().splitlines()
    assert first.endswith("error some.library - - it failed for x: ValueError: broken\\nthing")
    assert second.endswith("a message that could not be formatted")


def test_with_debug_the_traceback_is_on_the_same_line(log: FileEventLog, path: Path) -> None:
    logged(log, debug=True)
    assert "Traceback (most recent call last):\\n" in path.read_text().splitlines()[0]
