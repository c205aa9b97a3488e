"""Both clocks keep the port's promises."""

import time

import pytest

from fsmount.clock import SystemClock
from fsmount.ports import Clock
from tests.support.clock import ManualClock


def test_the_system_clock_is_the_machines() -> None:
    clock: Clock = SystemClock()
    assert abs(clock.now() - time.time()) < 5
    before = clock.monotonic()
    assert before <= clock.monotonic() <= time.monotonic()


def test_the_manual_clock_moves_only_when_moved() -> None:
    manual = ManualClock(now=100.0, monotonic=5.0)
    clock: Clock = manual
    assert (clock.now(), clock.monotonic()) == (100.0, 5.0)
    manual.advance(2.5)
    assert (clock.now(), clock.monotonic()) == (102.5, 7.5)
    manual.set_now(50.0)
    assert (clock.now(), clock.monotonic()) == (50.0, 7.5)
    with pytest.raises(AssertionError):
        manual.advance(-1)
