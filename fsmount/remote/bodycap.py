"""The server's limit on the body of a request, as far as its answers have told it.

Invariant: a file is refused beforehand only if the shortest request that could carry it is as long as one that was
refused; whatever may fit is tried.

What was learned is forgotten when the remote is probed anew, and not kept over restarts: a limit that was raised
meanwhile would otherwise never be found out, because nothing longer would be sent.
"""

from __future__ import annotations

from fsmount.remote.content import SIZE_LIMIT

LARGEST_BATCH = 900_000
SMALLEST_BATCH = 4096
_AROUND = len(b'{"content":""}')
"""Bytes that the shortest JSON body has beside a file's own."""


class BodyCap:
    """All lengths are bytes."""

    def __init__(self) -> None:
        self.max_batch_bytes = LARGEST_BATCH
        """How long the request of a batch may be."""
        self._refused: int | None = None

    @property
    def size_limit(self) -> int:
        """The longest file that may fit a request."""
        return SIZE_LIMIT if self._refused is None else max(0, min(SIZE_LIMIT, self._refused - _AROUND - 1))

    def forget(self) -> None:
        """The server may have another limit by now."""
        self._refused = None
        self.max_batch_bytes = LARGEST_BATCH

    def refused(self, length: int, *, files: int = 1) -> None:
        """A request of that length got 413; one of several files is halved from now on."""
        self._refused = length if self._refused is None else min(self._refused, length)
        if files > 1:
            self.max_batch_bytes = max(SMALLEST_BATCH, min(self.max_batch_bytes, length) // 2)

    def accepted(self, length: int) -> None:
        """A request of that length was taken: what seemed to be refused for its length was not, or is no longer."""
        if self._refused is not None and length >= self._refused:
            self._refused = None
