"""What follows from the outcome of one request: pure policy, no I/O, no clock.

Invariant: the table of outcomes stands here once. Whoever sends asks ``decide`` and does what the verdict says; nothing
else looks at a status to learn whether an op is tried again.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeAlias

from msgspec import Struct

from fsmount.errors import InvalidAnswer, Refusal, RemoteError, Unreachable
from fsmount.model import Base, OpKind, Reason

FIRST_BACKOFF = 0.5
LONGEST_BACKOFF = 60.0
LONGEST_RETRY_AFTER = 15 * 60.0
BACK_IN_DELETES = 60.0
"""How long deletes are held back when the remote calls them a storm without saying for how long."""

ASKED_ABOUT = frozenset({429, 502, 503, 504})
"""May be said of the whole remote as well as of one op: a probe tells which."""
TRANSIENT = frozenset({408, 423, 425, 500, 507})
UNSUPPORTED = frozenset({501, 505})
GONE = frozenset({404, 410})
PRECONDITION = frozenset({409, 412})


class Policy(Struct, frozen=True, kw_only=True):
    """How often an op is tried before a person has to look at it."""

    max_attempts: int = 8


class Acknowledge(Struct, frozen=True, tag=True):
    """What the op wanted is so."""


class Probe(Struct, frozen=True, tag=True):
    """Ask the remote something small: if that fails too, the mount is offline and the op is not charged."""


class RetryAfter(Struct, frozen=True, tag=True):
    """Charged; sent again after ``delay`` seconds."""

    delay: float


class HoldDeletes(Struct, frozen=True, tag=True):
    """Not charged; no delete is sent for ``delay`` seconds."""

    delay: float


class Refresh(Struct, frozen=True, tag=True):
    """Not charged; the credential is refused, nothing is sent until it changes."""


class Compare(Struct, frozen=True, tag=True):
    """The precondition failed: what the remote holds now decides."""


class Bury(Struct, frozen=True, tag=True):
    """A dead letter."""

    reason: Reason
    message: str


Verdict: TypeAlias = Acknowledge | Probe | RetryAfter | HoldDeletes | Refresh | Compare | Bury
Jitter: TypeAlias = Callable[[float], float]
"""Given a bound in seconds, a delay between 0 and it."""


def full_jitter(bound: float) -> float:
    """Spreads retries evenly over the whole of ``bound``, so that many mounts do not come back at once."""
    return random.SystemRandom().uniform(0.0, bound)


def backoff(attempts: int, jitter: Jitter = full_jitter) -> float:
    """Seconds to wait after the ``attempts``-th charged attempt: within 0.5 s · 2ⁿ, at most 60 s."""
    doublings = min(max(attempts - 1, 0), 16)
    return jitter(min(LONGEST_BACKOFF, FIRST_BACKOFF * 2**doublings))


def decide(
    kind: OpKind,
    base: Base,
    error: RemoteError | None,
    *,
    attempts: int,
    policy: Policy,
    jitter: Jitter = full_jitter,
    remote_answers: bool = False,
) -> Verdict:
    """The verdict on one request.

    ``kind`` is what the request did: a move puts its new name and deletes its old one. ``attempts`` counts those of the
    present budget, this one included. ``remote_answers`` says that the probe which an earlier verdict asked for was
    answered, so that the failure is the op's own.
    """
    if error is None:
        return Acknowledge()
    if is_asked_about(error) and not _is_delete_storm(kind, error):
        return _again(error, attempts, policy, jitter) if remote_answers else Probe()
    if not isinstance(error, Refusal):
        return Bury(Reason.REJECTED, told(error))
    return _refused(kind, base, error, lambda: _again(error, attempts, policy, jitter))


def is_asked_about(error: RemoteError) -> bool:
    """Whether the failure may be the whole remote's, or the network's."""
    if isinstance(error, Refusal):
        return error.status in ASKED_ABOUT
    return isinstance(error, (Unreachable, InvalidAnswer))


def asked_wait(error: RemoteError) -> float | None:
    """The seconds that the remote asks to wait, at most 15 minutes; None where it asks for nothing."""
    wait = error.retry_after if isinstance(error, Refusal) else None
    return None if wait is None or wait <= 0 else min(wait, LONGEST_RETRY_AFTER)


def told(error: RemoteError) -> str:
    """The failure as a dead letter's message tells it."""
    if isinstance(error, Refusal):
        return f"the remote refused it: {error.message}"
    return error.message


def _refused(kind: OpKind, base: Base, error: Refusal, again: Callable[[], Verdict]) -> Verdict:
    status = error.status
    if status == 401:
        return Refresh()
    if _is_delete_storm(kind, error):
        return HoldDeletes(asked_wait(error) or BACK_IN_DELETES)
    if status in PRECONDITION:
        return _precondition(kind, error, again)
    if status in GONE:
        return _gone(kind, base, error)
    if status in TRANSIENT or (status >= 500 and status not in UNSUPPORTED):
        return again()
    return Bury(_FINAL.get(status, Reason.REJECTED), told(error))


_FINAL = {403: Reason.FORBIDDEN, 413: Reason.TOO_LARGE}


def _precondition(kind: OpKind, error: Refusal, again: Callable[[], Verdict]) -> Verdict:
    # Amazon S3 says this of two requests that met on one key, whatever they were conditional on.
    if error.code == "ConditionalRequestConflict":
        return again()
    if kind is not OpKind.RMDIR:
        return Compare()
    if error.code == "not_empty":
        return Bury(Reason.NOT_EMPTY, "the directory is not empty on the remote")
    return Bury(Reason.REJECTED, told(error))


def _gone(kind: OpKind, base: Base, error: Refusal) -> Verdict:
    if kind in (OpKind.DELETE, OpKind.RMDIR):
        return Acknowledge()
    if base.absent:
        return Bury(Reason.PARENT_MISSING, f"its directory is not there on the remote: {error.message}")
    return Bury(Reason.REMOTE_DELETED, "somebody deleted the file on the remote since it was read here")


def _again(error: RemoteError, attempts: int, policy: Policy, jitter: Jitter) -> Verdict:
    if attempts >= policy.max_attempts:
        return Bury(Reason.EXHAUSTED, f"given up after {attempts} attempts: {error.message}")
    return RetryAfter(asked_wait(error) or backoff(attempts, jitter))


def _is_delete_storm(kind: OpKind, error: RemoteError) -> bool:
    storm = isinstance(error, Refusal) and error.status == 429 and error.code == "delete_storm_rejected"
    return storm and kind in (OpKind.DELETE, OpKind.RMDIR)


class Breaker:
    """Stops uploads after many dead letters in a row: then something is wrong with more than the files.

    Invariant: ``failing`` only turns false by an acknowledgement or by a person's word.
    """

    LIMIT = 20
    PAUSE = 60.0

    def __init__(self) -> None:
        self._in_a_row = 0
        self._next_try = 0.0

    @property
    def failing(self) -> bool:
        """Whether 20 ops in a row became dead letters, none acknowledged between them."""
        return self._in_a_row >= self.LIMIT

    def buried(self, now: float) -> None:
        """One more dead letter by the remote's doing; ``now`` is monotonic."""
        self._in_a_row += 1
        self._next_try = now + self.PAUSE

    def acknowledged(self) -> None:
        """Everything may be sent again."""
        self._in_a_row = 0

    def reset(self) -> None:
        """A person says that what was wrong is mended."""
        self._in_a_row = 0

    def tried(self, now: float) -> None:
        """The one op a minute was sent."""
        self._next_try = now + self.PAUSE

    @property
    def next_try(self) -> float:
        """Monotonic time from which one op may be sent while ``failing``."""
        return self._next_try
