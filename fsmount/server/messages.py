"""What passes between the HTTP connection and the routes; holds no behaviour of either."""

from collections.abc import Awaitable, Callable

import msgspec
import trio

from fsmount.wire.relayfile import ErrorBody

JSON_HEADERS = (("Content-Type", "application/json"),)


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One whole request. `path` is still percent-encoded, `query` holds the first value of each name and
    `values` all of them in their order, `headers` have lower-case names. `oversized` says that `body` was
    longer than the cap and is gone.
    """  # fmt: skip

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
    """One whole answer; `headers` leave out Content-Length, which belongs to the connection.

    With `switch` the request was an upgrade: nothing of this is sent, and the stream is handed over together
    with what the client has already said in the new protocol.
    """

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = JSON_HEADERS
    switch: Callable[[trio.abc.Stream, bytes], Awaitable[None]] | None = None


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
