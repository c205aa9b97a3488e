"""What httpx raises, in the words of ``errors``.

Invariant: every exception class that httpx publishes has its place in ``VERDICTS``; none of them leaves this package.
"""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum, auto

import httpx

from fsmount.errors import InvalidAnswer, RemoteError, Unreachable


class Verdict(Enum):
    """What an exception says about the remote."""

    SILENT = auto()
    UNREACHABLE = auto()
    INVALID = auto()


VERDICTS: dict[type[Exception], Verdict] = {
    httpx.TimeoutException: Verdict.SILENT,
    httpx.ConnectTimeout: Verdict.SILENT,
    httpx.ReadTimeout: Verdict.SILENT,
    httpx.WriteTimeout: Verdict.SILENT,
    httpx.PoolTimeout: Verdict.SILENT,
    httpx.NetworkError: Verdict.UNREACHABLE,
    httpx.ConnectError: Verdict.UNREACHABLE,
    httpx.ReadError: Verdict.UNREACHABLE,
    httpx.WriteError: Verdict.UNREACHABLE,
    httpx.CloseError: Verdict.UNREACHABLE,
    httpx.ProxyError: Verdict.UNREACHABLE,
    # A connection cut within the answer, or a port that speaks something else than HTTP: no answer came.
    httpx.ProtocolError: Verdict.UNREACHABLE,
    httpx.RemoteProtocolError: Verdict.UNREACHABLE,
    httpx.LocalProtocolError: Verdict.UNREACHABLE,
    httpx.UnsupportedProtocol: Verdict.UNREACHABLE,
    httpx.TransportError: Verdict.UNREACHABLE,
    httpx.RequestError: Verdict.UNREACHABLE,
    httpx.HTTPError: Verdict.UNREACHABLE,
    httpx.DecodingError: Verdict.INVALID,
    httpx.TooManyRedirects: Verdict.INVALID,
    httpx.HTTPStatusError: Verdict.INVALID,
    httpx.InvalidURL: Verdict.INVALID,
    httpx.CookieConflict: Verdict.INVALID,
    httpx.StreamError: Verdict.INVALID,
    httpx.StreamConsumed: Verdict.INVALID,
    httpx.StreamClosed: Verdict.INVALID,
    httpx.ResponseNotRead: Verdict.INVALID,
    httpx.RequestNotRead: Verdict.INVALID,
}
_CAUGHT = (httpx.HTTPError, httpx.InvalidURL, httpx.CookieConflict, httpx.StreamError)


@contextmanager
def translated(origin: str, correlation_id: str) -> Iterator[None]:
    """Raises Unreachable or InvalidAnswer in place of anything of httpx's; ``origin`` is named in the message."""
    try:
        yield
    except _CAUGHT as error:
        raise translate(error, origin, correlation_id) from error


def translate(error: Exception, origin: str, correlation_id: str) -> RemoteError:
    """Our error for one of httpx's."""
    match next(VERDICTS[kind] for kind in type(error).__mro__ if kind in VERDICTS):
        case Verdict.SILENT:
            return silent(origin, correlation_id)
        case Verdict.INVALID:
            return InvalidAnswer(f"{origin} gave an answer that cannot be read: {error}", correlation_id=correlation_id)
        case Verdict.UNREACHABLE:
            return unreachable(error, origin, correlation_id)


def unreachable(error: Exception, origin: str, correlation_id: str | None = None) -> Unreachable:
    """No answer came, because of ``error`` or what it came from."""
    message, hint = _why(error, origin)
    return Unreachable(message, correlation_id=correlation_id, hint=hint)


def silent(origin: str, correlation_id: str) -> Unreachable:
    """The remote took too long."""
    return Unreachable(
        f"{origin} did not answer in time",
        timed_out=True,
        correlation_id=correlation_id,
        hint="check the network and the server, or allow more with --timeout",
    )


def _why(error: Exception, origin: str) -> tuple[str, str]:
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, socket.gaierror):
            return f"the host of {origin} is unknown", "check the spelling of the remote and the name server"
        if isinstance(cause, ssl.SSLError):
            return f"{origin} cannot be trusted: {_reason(cause)}", "check the certificate, or set SSL_CERT_FILE"
        if isinstance(cause, OSError) and cause.errno == errno.ECONNREFUSED:
            return f"nothing listens at {origin}", "start the server, or check host and port of the remote"
    return f"{origin} is not reachable: {_reason(error)}", "check the network and the server"


def _reason(error: BaseException) -> str:
    return str(error).strip() or type(error).__name__


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and everything that it came from, groups opened (trio tries several addresses at once)."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        current = waiting.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        waiting += [current.__cause__, current.__context__]
        if isinstance(current, BaseExceptionGroup):
            waiting += current.exceptions
