"""Limits by a clock that the test moves."""

import pytest

from fsmount.server.limits import WINDOW, DeleteStorm, RateLimit
from fsmount.server.messages import Rejected
from fsmount.server.principal import Principal


class Clock:
    now = 10.0 * WINDOW

    def __call__(self) -> float:
        return self.now


def who(subject: str, workspace: str = "w") -> Principal:
    return Principal(workspace=workspace, subject=subject, scopes=("fs:read",))


def test_a_window_is_fixed_and_each_subject_has_its_own() -> None:
    clock = Clock()
    limit = RateLimit(2, clock)
    for _ in range(2):
        limit.count(who("a"))
        limit.count(who("b"))
        limit.count(who("a", "v"))
    clock.now += WINDOW - 1
    with pytest.raises(Rejected) as refusal:
        limit.count(who("a"))
    assert (refusal.value.status, refusal.value.code, refusal.value.retry_after) == (429, "rate_limited", WINDOW)
    clock.now += 1
    limit.count(who("a"))


def test_a_storm_holds_until_it_was_quiet_for_a_minute() -> None:
    clock = Clock()
    storm = DeleteStorm(2, clock)
    storm.count("w")
    storm.count("w")
    for _ in range(5):
        clock.now += WINDOW / 3
        with pytest.raises(Rejected, match="more than 2 deletes within 60 s"):
            storm.count("w")
    storm.count("elsewhere")
    clock.now += WINDOW
    storm.count("w")


def test_few_deletes_at_a_time_are_no_storm() -> None:
    clock = Clock()
    storm = DeleteStorm(2, clock)
    for _ in range(10):
        storm.count("w")
        clock.now += WINDOW / 2
