"""What passes between the HTTP connection and the routes; holds no behaviour of either."""

from collections.abc import Iterator
from typing import Protocol

import msgspec

from fsmount.wire.relayfile import ErrorBody

JSON_HEADERS = (("Content-Type", "application/json"),)


class Sink(Protocol):
    """Where a body goes that is streamed in. `close` forgets what was not made use of."""

    def write(self, piece: bytes) -> None: ...
    def close(self) -> None: ...


class Content(Protocol):
    """A body that is streamed out: `length` bytes in pieces. Who sends it closes it."""

    @property
    def length(self) -> int: ...
    def pieces(self) -> Iterator[bytes]: ...
    def close(self) -> None: ...


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One request, whole but for a body that is streamed. `path` is still percent-encoded, `query` holds the first
    value of each name, `headers` have lower-case names. `oversized` says that `body` was longer than the cap and is
    gone.
    """

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes = b""
    oversized: bool = False


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One answer; `headers` leave out Content-Length, which belongs to the connection.

    `content` takes the place of `body` where that would be too large to hold.
    """

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = JSON_HEADERS
    content: Content | None = None

    @property
    def length(self) -> int:
        """Bytes of the body."""
        return len(self.body) if self.content is None else self.content.length

    def pieces(self) -> Iterator[bytes]:
        """The body in order."""
        return iter((self.body,) if self.body else ()) if self.content is None else self.content.pieces()

    def close(self) -> None:
        """Gives back what `content` holds."""
        if self.content is not None:
            self.content.close()


class Rejected(Exception):
    """A request that ends in an error body. `correlation_id` is filled in where the request is known."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        expected: str | None = None,
        current: str | None = None,
        preview: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.expected = expected
        self.current = current
        self.preview = preview

    def body(self, correlation_id: str) -> ErrorBody:
        """The error body that a client sees."""
        return ErrorBody(
            code=self.code,
            message=self.message,
            correlation_id=correlation_id,
            expected_revision=self.expected,
            current_revision=self.current,
            current_content_preview=self.preview,
        )


def answer(status: int, body: msgspec.Struct, *headers: tuple[str, str]) -> Answer:
    """`body` as a JSON answer."""
    return Answer(status=status, body=msgspec.json.encode(body), headers=(*JSON_HEADERS, *headers))


def rejection(rejected: Rejected, correlation_id: str) -> Answer:
    """The answer to a request that was rejected."""
    return answer(rejected.status, rejected.body(correlation_id))
