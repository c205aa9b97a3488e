"""What passes between the HTTP connection and the routes; holds no behaviour of either."""

from collections.abc import Awaitable, Callable, Iterator
from typing import Protocol, TypedDict, Unpack

import msgspec
import trio

from fsmount.wire.relayfile import ErrorBody, MergeConflict

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
    value of each name and `values` all of them in their order, `headers` have lower-case names. `oversized` says that
    `body` was longer than the cap and is gone.
    """

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes = b""
    oversized: bool = False
    values: tuple[tuple[str, str], ...] = ()

    def every(self, name: str) -> list[str]:
        """All values that the query gives for `name`."""
        return [value for given, value in self.values if given == name]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One answer; `headers` leave out Content-Length, which belongs to the connection.

    `content` takes the place of `body` where that would be too large to hold. With `switch` the request was an
    upgrade: nothing of this is sent, and the stream is handed over together with what the client has already said in
    the new protocol.
    """

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = JSON_HEADERS
    content: Content | None = None
    switch: Callable[[trio.abc.Stream, bytes], Awaitable[None]] | None = None

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


class Members(TypedDict, total=False):
    """What some error bodies have and others have not."""

    expected_revision: str
    current_content_preview: str | None
    reason: str
    conflicts: tuple[MergeConflict, ...]


class Rejected(Exception):
    """A request that ends in an error body. `correlation_id` is filled in where the request is known.

    `members` are further members of the body; `retry_after` is in seconds.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        retry_after: int | None = None,
        current: str | None = None,
        **members: Unpack[Members],
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after = retry_after
        self.current = current
        self.members = members

    def body(self, correlation_id: str) -> ErrorBody:
        """The error body that a client sees."""
        return ErrorBody(
            code=self.code,
            message=self.message,
            correlation_id=correlation_id,
            current_revision=self.current,
            **self.members,
        )


def answer(status: int, body: msgspec.Struct, *headers: tuple[str, str]) -> Answer:
    """`body` as a JSON answer."""
    return Answer(status=status, body=msgspec.json.encode(body), headers=(*JSON_HEADERS, *headers))


def rejection(rejected: Rejected, correlation_id: str) -> Answer:
    """The answer to a request that was rejected."""
    headers = [] if rejected.retry_after is None else [("Retry-After", str(rejected.retry_after))]
    return answer(rejected.status, rejected.body(correlation_id), *headers)
