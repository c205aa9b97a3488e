"""What the log, the events and an op's history say of one request.

Invariant: nothing here decides anything; what a server answered is cut before it is told.
"""

from __future__ import annotations

from fsmount.errors import InvalidAnswer, Refusal, RemoteError, Unreachable
from fsmount.model import Claim, Reason, Revision, State
from fsmount.ports import Details
from fsmount.uploader.parts import Request

SHOWN_BODY = 1024
"""Bytes of an answer that are told."""


def details_of(
    claim: Claim,
    state: State | None = None,
    *,
    reason: Reason | None = None,
    status: int | None = None,
    revision: Revision | None = None,
) -> Details:
    """What the event about a claimed op tells beside its names; the attempt is the one that is made with this claim."""
    return Details(
        kind=claim.op.kind, reason=reason, status=status, attempt=claim.attempts + 1, revision=revision, state=state
    )


def status_of(error: RemoteError | None) -> int:
    """The HTTP status of an answer; 0 where none came."""
    if error is None:
        return 200
    return error.status if isinstance(error, (Refusal, InvalidAnswer)) else 0


def body_of(error: RemoteError | None) -> str:
    """What the server wrote beside a refusal, cut at a character."""
    body = error.body if isinstance(error, (Refusal, InvalidAnswer)) else ""
    return body.encode()[:SHOWN_BODY].decode(errors="ignore")


def asked(request: Request, error: RemoteError, message: str) -> str:
    """The failed request beside a ``message`` about it, which need not be said twice."""
    parts = [f"{request.kind.upper()} {request.path}"]
    if error.message not in message:
        parts = [answer(request, error)]
    elif correlation_id := getattr(error, "correlation_id", None):
        parts.append(f"correlation id {correlation_id}")
    return "; ".join(parts)


def answer(request: Request, error: RemoteError) -> str:
    """The failed request for the log: method, path, status, cut body, correlation id."""
    parts = [f"{request.kind.upper()} {request.path}: {error.message}"]
    if body := body_of(error):
        parts.append(f"body {body}")
    if isinstance(error, (Refusal, Unreachable, InvalidAnswer)) and error.correlation_id:
        parts.append(f"correlation id {error.correlation_id}")
    return "; ".join(parts)
