"""Whatever an action does, its caller goes on in time and knows what happened."""

import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsmount.cli.child import Child, ChildFailed, in_child, pieces
from fsmount.errors import TimedOut


def test_the_result_comes_back() -> None:
    assert in_child(lambda: b"x" * 300_000, what="w", hint="h") == b"x" * 300_000


def test_an_empty_result_is_a_result() -> None:
    assert in_child(lambda: b"", what="w", hint="h") == b""


def test_it_runs_in_another_process() -> None:
    assert int(in_child(lambda: str(os.getpid()).encode(), what="w", hint="h")) != os.getpid()


def test_an_oserror_keeps_its_errno() -> None:
    with pytest.raises(FileNotFoundError) as caught:
        in_child(lambda: Path("/nowhere/at/all").read_bytes(), what="w", hint="h")
    assert caught.value.errno == errno.ENOENT


def test_any_other_error_is_told() -> None:
    with pytest.raises(ChildFailed, match="ZeroDivisionError"):
        in_child(lambda: bytes(1 // 0), what="w", hint="h")


def test_one_that_hangs_is_left_behind() -> None:
    def hang() -> bytes:
        time.sleep(60)
        return b""

    started = time.monotonic()
    with pytest.raises(TimedOut, match="the mount does not answer") as caught:
        in_child(hang, what="the mount", hint="look at pid 7", deadline=0.2)
    assert time.monotonic() - started < 10
    assert caught.value.hint == "look at pid 7"
    assert caught.value.exit_code == 6


def test_pieces_come_one_by_one_and_each_has_its_time() -> None:
    def slowly() -> Iterator[bytes]:
        for number in range(4):
            time.sleep(0.15)
            yield str(number).encode()

    assert list(pieces(slowly, what="w", hint="h", deadline=0.4)) == [b"0", b"1", b"2", b"3"]


def test_what_came_before_an_error_is_had() -> None:
    def failing() -> Iterator[bytes]:
        yield b"first"
        raise OSError(errno.ENOTCONN, "gone")

    found = pieces(failing, what="w", hint="h")
    assert next(found) == b"first"
    with pytest.raises(OSError, match="gone"):
        next(found)


def test_several_side_by_side_and_what_is_there_is_read_after_the_deadline() -> None:
    def hang() -> list[bytes]:
        time.sleep(60)
        return []

    started = time.monotonic()
    with Child(hang, what="first", hint="h") as first, Child(lambda: [b"x"], what="second", hint="h") as second:
        with pytest.raises(TimedOut, match="first"):
            first.next(started + 0.3)
        assert second.next(started) == b"x"
        assert second.next(started) is None
    assert time.monotonic() - started < 10
