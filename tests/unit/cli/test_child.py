"""Whatever an action does, its caller goes on in time and knows what happened."""

import errno
import os
import time
from pathlib import Path

import pytest

from fsmount.cli.child import ChildFailed, in_child
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
