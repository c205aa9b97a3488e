"""``log`` and ``events``: files that only grow, each generation an inode of its own.

Invariant: what a handle has read never moves. Nobody who writes a line waits for a reader: a waiting one is woken once,
and asks again.
"""

from __future__ import annotations

import select
import threading
from collections.abc import Callable

from fsmount.model import Attr, Ino
from fsmount.ports import LogFile, Stream

_MORE = select.POLLIN | select.POLLRDNORM
_ENDED = _MORE | select.POLLHUP
_GENERATIONS = 1 << 32


class OpenStream:
    """One generation as a reader has it."""

    def __init__(self, stream: StreamFile, file: LogFile) -> None:
        self._stream = stream
        self._file = file
        self._seen = 0

    @property
    def attr(self) -> Attr:
        return self._stream.attr_of(self._file)

    @property
    def generation(self) -> int:
        """Which one it is."""
        return self._file.generation

    def read(self, offset: int, size: int) -> bytes:
        found = self._file.read(offset, size)
        self._seen = max(self._seen, offset + len(found))
        return found

    def poll(self, wake: Callable[[], None] | None) -> int:
        """Readable while there is more than was read; hung up once all is read of a file that grows no more.

        Nothing of both: ``wake`` is called once, on any thread, when that changes.
        """
        if wake is not None:
            self._stream.wait(self, wake)
        ready = self._ready()
        if ready:
            self._stream.forget(self)
        return ready

    def close(self) -> None:
        self._stream.forget(self)
        self._file.close()

    def _ready(self) -> int:
        # In this order: a line may come, and the file with it, between the two looks.
        ended = self._stream.stream.current.generation != self._file.generation
        if self._file.size > self._seen:
            return _MORE
        return _ENDED if ended else 0


class StreamFile:
    """A stream as a name of the tree; ``attr`` makes an Attr of number, size and time."""

    def __init__(self, first: int, stream: Stream, attr: Callable[[Ino, int, float], Attr]) -> None:
        self.stream = stream
        self._first = first
        self._attr = attr
        self._lock = threading.Lock()
        self._waiting: dict[OpenStream, Callable[[], None]] = {}
        stream.watch(self._grown)

    def has(self, ino: Ino) -> bool:
        """Whether the number is that of one of its generations."""
        return self._first <= ino < self._first + _GENERATIONS

    def generation(self, ino: Ino) -> int:
        """Which generation has this number."""
        return ino - self._first

    def current(self) -> Attr:
        """What ``stat`` shows of the generation that is written now."""
        return self.attr_of(self.stream.current)

    def attr_of(self, file: LogFile) -> Attr:
        """What ``stat`` shows of a generation."""
        return self._attr(Ino(self._first + file.generation), file.size, file.mtime)

    def open(self) -> OpenStream:
        """A reader of the current generation."""
        return OpenStream(self, self.stream.open())

    def wait(self, reader: OpenStream, wake: Callable[[], None]) -> None:
        """``wake`` is called at the next line; it replaces what the reader gave before."""
        with self._lock:
            self._waiting[reader] = wake

    def forget(self, reader: OpenStream) -> None:
        """The reader does not wait any more."""
        with self._lock:
            self._waiting.pop(reader, None)

    def _grown(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        for wake in waiting.values():
            wake()
