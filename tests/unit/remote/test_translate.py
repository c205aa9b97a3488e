"""No exception of httpx's is missed, and each says what a person needs."""

from __future__ import annotations

import inspect
import socket
import ssl

import httpx
import pytest

from fsmount.errors import InvalidAnswer, Unreachable
from fsmount.remote.translate import _CAUGHT, VERDICTS, Verdict, translate, translated

PUBLISHED = [kind for _, kind in inspect.getmembers(httpx, inspect.isclass) if issubclass(kind, Exception)]
BARE: dict[type[Exception], Exception] = {
    httpx.HTTPStatusError: httpx.HTTPStatusError(
        "x", request=httpx.Request("GET", "http://h"), response=httpx.Response(500)
    ),
    httpx.StreamConsumed: httpx.StreamConsumed(),
    httpx.StreamClosed: httpx.StreamClosed(),
    httpx.ResponseNotRead: httpx.ResponseNotRead(),
    httpx.RequestNotRead: httpx.RequestNotRead(),
}


def test_every_exception_has_its_place() -> None:
    assert set(VERDICTS) == set(PUBLISHED)


@pytest.mark.parametrize("kind", PUBLISHED, ids=lambda kind: kind.__name__)
def test_every_exception_is_caught_and_translated(kind: type[Exception]) -> None:
    assert issubclass(kind, _CAUGHT)
    with pytest.raises((Unreachable, InvalidAnswer)) as caught, translated("http://h", "c-1"):
        raise BARE.get(kind) or kind("broken")
    assert isinstance(caught.value, Unreachable | InvalidAnswer)
    assert caught.value.correlation_id == "c-1"
    timed_out = isinstance(caught.value, Unreachable) and caught.value.timed_out
    assert timed_out == (VERDICTS[kind] is Verdict.SILENT)
    assert isinstance(caught.value, InvalidAnswer) == (VERDICTS[kind] is Verdict.INVALID)


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (ConnectionRefusedError(111, "refused"), "nothing listens at http://h"),
        (socket.gaierror(-2, "unknown"), "the host of http://h is unknown"),
        (ssl.SSLCertVerificationError("self-signed"), "cannot be trusted"),
        (OSError(101, "Network is unreachable"), "is not reachable"),
    ],
)
def test_the_cause_is_named(cause: Exception, words: str) -> None:
    error = httpx.ConnectError("failed")
    error.__cause__ = ExceptionGroup("several addresses", [cause])
    translation = translate(error, "http://h", "c-1")
    assert words in str(translation)
    assert translation.hint
