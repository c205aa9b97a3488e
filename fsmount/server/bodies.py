"""Bodies too large for a row of the store: one file a revision, below `bodies/` in the data folder.

Invariant: a file that bears a revision's name is whole and never changes, and it stands there before the row of that
revision is committed. What no row names goes: after the commit that took the row away, or at the next start.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

INLINE = 1024 * 1024
"""Bytes up to which a body lies in its row, as one that came by `/fs/file` does."""
PIECE = 256 * 1024
_UNFINISHED = "new-"


class Incoming:
    """One body on its way in: in memory up to `INLINE` bytes, then in a file of its own.

    A disk that takes no more is remembered in `failure`; what comes after it is let go.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._hasher = hashlib.sha256()
        self._held = bytearray()
        self._fd = -1
        self.size = 0
        """Bytes so far."""
        self.failure: OSError | None = None

    @property
    def digest(self) -> str:
        """The sha256 of what came so far."""
        return self._hasher.hexdigest()

    @property
    def held(self) -> bytes | None:
        """Everything that came, or None where that is in the file."""
        return bytes(self._held) if self._fd < 0 else None

    def write(self, piece: bytes) -> None:
        """Takes the next bytes. Never raises."""
        if self.failure is not None:
            return
        self._hasher.update(piece)
        self.size += len(piece)
        try:
            if self._fd < 0 and self.size > INLINE:
                self._spill()
            if self._fd < 0:
                self._held += piece
            else:
                _write_all(self._fd, piece)
        except OSError as error:
            self.failure = error
            self.close()

    def rename(self, name: str) -> None:
        """Gives the file its name; it is no longer this object's to remove."""
        os.rename(self._file, self._file.with_name(name))
        os.close(self._fd)
        self._fd = -1

    def close(self) -> None:
        """Forgets what was not renamed; a second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._file.unlink(missing_ok=True)

    def _spill(self) -> None:
        self._fd = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        _write_all(self._fd, self._held)
        self._held.clear()


class Part:
    """`length` bytes of a body from `start` on, read as they are sent, even where the body is replaced meanwhile."""

    def __init__(self, fd: int, start: int, length: int) -> None:
        self._fd = fd
        self._start = start
        self.length = length

    def pieces(self) -> Iterator[bytes]:
        """The bytes in order; ends early where the file was cut by somebody else."""
        at, end = self._start, self._start + self.length
        while at < end and (piece := os.pread(self._fd, min(PIECE, end - at), at)):
            yield piece
            at += len(piece)

    def close(self) -> None:
        """Gives the descriptor back; a second call does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class Bodies:
    """The files below `folder`, which is made if it is missing. Raises OSError."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        self._folder = folder
        self._count = 0
        self._names = {entry.name for entry in os.scandir(folder)}

    def incoming(self) -> Incoming:
        """Room for one more body."""
        self._count += 1
        return Incoming(self._folder / f"{_UNFINISHED}{self._count}")

    def adopt(self, body: Incoming, revision: str) -> None:
        """The body is that revision's from now on."""
        body.rename(revision)
        self._names.add(revision)

    def link(self, revision: str, other: str) -> bool:
        """Gives the body of one revision to another one too; False where it has none here."""
        if revision not in self._names:
            return False
        os.link(self._folder / revision, self._folder / other)
        self._names.add(other)
        return True

    def part(self, revision: str, start: int, length: int) -> Part:
        """Some of a body's bytes; the caller closes it."""
        return Part(os.open(self._folder / revision, os.O_RDONLY | os.O_CLOEXEC), start, length)

    def remove(self, revision: str) -> None:
        """The bytes of a revision that is gone; nothing happens where there are none."""
        if revision in self._names:
            self._names.discard(revision)
            (self._folder / revision).unlink(missing_ok=True)

    def sweep(self, named: Callable[[str], bool]) -> None:
        """Removes what a crash left: unfinished bodies, and those that no row has."""
        for name in [name for name in self._names if not named(name)]:
            self.remove(name)


def _write_all(fd: int, content: bytes | bytearray) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]
