"""The table of outcomes, a test a row."""

from __future__ import annotations

import pytest

from fsmount.errors import InvalidAnswer, Refusal, RemoteError, Unreachable
from fsmount.model import ABSENT, Base, OpKind, Reason, Revision
from fsmount.retry import (
    Acknowledge,
    Breaker,
    Bury,
    Compare,
    HoldDeletes,
    Policy,
    Probe,
    Refresh,
    RetryAfter,
    Verdict,
    backoff,
    decide,
    full_jitter,
)

AT_REVISION = Base(Revision("rev_1"))
EVERY = tuple(OpKind)
WRITES = (OpKind.PUT, OpKind.MOVE)


def verdict(
    kind: OpKind,
    error: RemoteError | None,
    *,
    base: Base = AT_REVISION,
    attempts: int = 1,
    remote_answers: bool = False,
) -> Verdict:
    return decide(
        kind,
        base,
        error,
        attempts=attempts,
        policy=Policy(max_attempts=8),
        jitter=lambda bound: bound,
        remote_answers=remote_answers,
    )


def buried(kind: OpKind, status: int, *, base: Base = AT_REVISION, code: str = "") -> Reason:
    found = verdict(kind, Refusal(status, code=code, message="why"), base=base)
    assert isinstance(found, Bury)
    assert found.message
    return found.reason


ASKED = [
    Unreachable("refused"),
    Unreachable("silent", timed_out=True),
    InvalidAnswer("not the protocol"),
    *(Refusal(status) for status in (429, 502, 503, 504)),
]


@pytest.mark.parametrize("kind", EVERY)
def test_a_valid_answer_acknowledges(kind: OpKind) -> None:
    assert verdict(kind, None) == Acknowledge()


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("error", ASKED, ids=str)
def test_what_may_be_the_whole_remotes_is_probed_first(kind: OpKind, error: RemoteError) -> None:
    assert verdict(kind, error) == Probe()
    assert verdict(kind, error, attempts=99) == Probe()


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("error", ASKED, ids=str)
def test_after_an_answered_probe_it_is_the_ops_and_charged(kind: OpKind, error: RemoteError) -> None:
    assert verdict(kind, error, remote_answers=True) == RetryAfter(0.5)


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("status", [408, 423, 425, 500, 507, 520])
def test_transient_failures_are_retried(kind: OpKind, status: int) -> None:
    assert verdict(kind, Refusal(status)) == RetryAfter(0.5)
    assert verdict(kind, Refusal(status), attempts=3) == RetryAfter(2.0)


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("error", [Refusal(500), Refusal(408), Unreachable("refused"), Refusal(503)], ids=str)
def test_the_last_attempt_of_a_budget_exhausts_it(kind: OpKind, error: RemoteError) -> None:
    assert isinstance(verdict(kind, error, attempts=7, remote_answers=True), RetryAfter)
    last = verdict(kind, error, attempts=8, remote_answers=True)
    assert isinstance(last, Bury)
    assert last.reason is Reason.EXHAUSTED
    assert "8 attempts" in last.message


@pytest.mark.parametrize("kind", EVERY)
def test_401_asks_for_another_credential(kind: OpKind) -> None:
    assert verdict(kind, Refusal(401), attempts=99) == Refresh()


@pytest.mark.parametrize("kind", [OpKind.PUT, OpKind.MOVE, OpKind.DELETE])
@pytest.mark.parametrize("base", [ABSENT, AT_REVISION])
@pytest.mark.parametrize("status", [409, 412])
def test_a_failed_precondition_is_compared(kind: OpKind, base: Base, status: int) -> None:
    assert verdict(kind, Refusal(status, code="revision_conflict"), base=base) == Compare()


@pytest.mark.parametrize("kind", EVERY)
def test_two_requests_that_met_at_s3_are_no_conflict(kind: OpKind) -> None:
    assert verdict(kind, Refusal(409, code="ConditionalRequestConflict")) == RetryAfter(0.5)


def test_a_directory_that_holds_something_is_not_removed() -> None:
    assert buried(OpKind.RMDIR, 409, code="not_empty") is Reason.NOT_EMPTY
    assert buried(OpKind.RMDIR, 409, code="parent_moved") is Reason.REJECTED


@pytest.mark.parametrize("kind", WRITES)
@pytest.mark.parametrize("status", [404, 410])
def test_an_update_of_what_is_gone_is_remote_deleted(kind: OpKind, status: int) -> None:
    assert buried(kind, status) is Reason.REMOTE_DELETED


@pytest.mark.parametrize("kind", WRITES)
@pytest.mark.parametrize("status", [404, 410])
def test_a_create_that_finds_nothing_lacks_its_parent(kind: OpKind, status: int) -> None:
    assert buried(kind, status, base=ABSENT) is Reason.PARENT_MISSING


@pytest.mark.parametrize("kind", [OpKind.DELETE, OpKind.RMDIR])
@pytest.mark.parametrize("status", [404, 410])
def test_removing_what_is_gone_is_done(kind: OpKind, status: int) -> None:
    assert verdict(kind, Refusal(status)) == Acknowledge()


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (403, Reason.FORBIDDEN),
        (413, Reason.TOO_LARGE),
        *((status, Reason.REJECTED) for status in (400, 402, 405, 406, 411, 415, 422, 451, 501, 505)),
        *((status, Reason.REJECTED) for status in (301, 302, 307, 308)),
    ],
)
def test_what_no_retry_can_mend_is_buried_at_once(kind: OpKind, status: int, reason: Reason) -> None:
    assert buried(kind, status) is reason


@pytest.mark.parametrize("kind", [OpKind.DELETE, OpKind.RMDIR])
def test_a_delete_storm_holds_back_the_deletes(kind: OpKind) -> None:
    storm = Refusal(429, code="delete_storm_rejected", retry_after=60)
    assert verdict(kind, storm, attempts=99) == HoldDeletes(60)
    assert verdict(kind, Refusal(429, code="delete_storm_rejected")) == HoldDeletes(60)


@pytest.mark.parametrize("status", [408, 500, 429, 503])
def test_retry_after_is_obeyed_up_to_a_quarter_of_an_hour(status: int) -> None:
    def wait(retry_after: float) -> Verdict:
        return verdict(OpKind.PUT, Refusal(status, retry_after=retry_after), remote_answers=True)

    assert wait(7) == RetryAfter(7)
    assert wait(86_400) == RetryAfter(900)
    assert wait(0) == RetryAfter(0.5), "a wait of nothing is no leave to spin"


def test_the_backoff_doubles_up_to_a_minute() -> None:
    bounds = [backoff(attempts, lambda bound: bound) for attempts in (1, 2, 3, 7, 8, 9, 500)]
    assert bounds == [0.5, 1.0, 2.0, 32.0, 60.0, 60.0, 60.0]


def test_the_jitter_spreads_over_the_whole_bound() -> None:
    drawn = [full_jitter(10.0) for _ in range(400)]
    assert all(0.0 <= delay <= 10.0 for delay in drawn)
    assert min(drawn) < 2.0
    assert max(drawn) > 8.0


def bury_many(breaker: Breaker, count: int) -> bool:
    for _ in range(count):
        breaker.buried(100.0)
    return breaker.failing


def test_twenty_dead_letters_in_a_row_pause_uploads_until_one_is_acknowledged() -> None:
    breaker = Breaker()
    assert not bury_many(breaker, 19)
    assert bury_many(breaker, 1)
    assert breaker.next_try == 160.0
    breaker.tried(160.0)
    assert breaker.next_try == 220.0
    assert breaker.failing, "trying is not succeeding"
    breaker.acknowledged()
    assert not bury_many(breaker, 19)


def test_an_acknowledgement_starts_the_count_again() -> None:
    breaker = Breaker()
    for _ in range(3):
        for _ in range(19):
            breaker.buried(0.0)
        breaker.acknowledged()
    assert not breaker.failing
