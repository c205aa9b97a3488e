"""One program that writes into a mount and notes, outside of it, what it was told.

    python -m tests.faults.writer DIRECTORY LOG SEED [DEVICE-OF-WHAT-LIES-BENEATH]

Invariant: a line of the log says what is about to be done, the next one what came of it. Each content is written once
and says by whom. Ends at a SIGTERM, after the operation under way.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable

LARGE = 300_000
PAUSE = 0.01
DIED = ("ENOTCONN", "ECONNABORTED")
"""The daemon is gone, or went: what it was asked for is done or not, and nothing in between."""


class Writer:
    """Works in a directory of its own; ``files`` are the names that it believes to exist."""

    def __init__(self, directory: str, log: str, seed: int, beneath: int) -> None:
        self.directory = directory
        self.random = random.Random(f"{seed} {directory}")
        self.beneath = beneath
        self.files: list[str] = []
        self.number = 0
        self.log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self.stopping = False
        signal.signal(signal.SIGTERM, self._stop)

    def _stop(self, *_: object) -> None:
        self.stopping = True

    def run(self) -> None:
        kinds = [self.new, self.new, self.new, self.save, self.append, self.edit, self.swap, self.swap_new, self.move,
                 self.remove, self.fsynced, self.large, self.deep]  # fmt: skip
        while not self.stopping:
            failed = self._do(self.random.choice(kinds))
            time.sleep(10 * PAUSE if failed else self.random.uniform(0, 2 * PAUSE))

    def _do(self, kind: Callable[[], None]) -> bool:
        """Whether it failed."""
        self.began = self.writing = False
        try:
            os.makedirs(self.directory, exist_ok=True)
            kind()
        except OSError as error:
            if self.began:
                name = errno.errorcode.get(error.errno or 0, str(error))
                self.note(failed=name, partial=self.writing and name not in DIED)
            return True
        return False

    # the log

    def note(self, **members: object) -> None:
        line = json.dumps({"at": round(time.time(), 3), **members})
        os.write(self.log, line.encode() + b"\n")

    def begin(self, kind: str, **paths: object) -> None:
        """``to`` and ``digest``: what stands where if it succeeds; ``gone``: what does not any more."""
        self.began = True
        self.note(kind=kind, **paths)

    def done(self) -> None:
        self.note(done=True)

    # contents

    def content(self, size: int = 0) -> bytes:
        self.number += 1
        head = f"{self.directory} {self.number}\n".encode()
        return head + self.random.randbytes(max(0, size or self.random.randrange(0, 3000)))

    def name(self) -> str:
        self.number += 1
        return f"{self.number:05}"

    def path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def some(self) -> str:
        """A file that is there already; a new name where there is none."""
        return self.random.choice(self.files[-40:]) if self.files else self.name()

    # how programs write

    def opened(self, name: str, flags: int) -> int:
        fd = os.open(self.path(name), flags, 0o644)
        if os.fstat(fd).st_dev == self.beneath:
            os.close(fd)
            os.unlink(self.path(name))
            raise OSError(errno.ENOTCONN, "nothing is mounted here")
        self.writing = self.began
        return fd

    def whole(self, kind: str, name: str, content: bytes, *, sync: bool = False) -> None:
        self.begin(kind, to=name, digest=digest(content))
        fd = self.opened(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            written(fd, content)
            if sync:
                os.fsync(fd)
        finally:
            os.close(fd)
        self.done()
        self.keep(name)

    def keep(self, name: str) -> None:
        if name not in self.files:
            self.files.append(name)

    def new(self) -> None:
        self.whole("new", self.name(), self.content())

    def save(self) -> None:
        self.whole("save", self.some(), self.content())

    def fsynced(self) -> None:
        self.whole("fsync", self.name(), self.content(), sync=True)

    def large(self) -> None:
        self.whole("large", self.name(), self.content(LARGE))

    def append(self) -> None:
        """Reads what is there first, for its digest."""
        self.changed("append", lambda before, more: before + more)

    def edit(self) -> None:
        self.changed("edit", lambda before, more: more[:50] + before[50:])

    def changed(self, kind: str, change: Callable[[bytes, bytes], bytes]) -> None:
        name = self.some()
        fd = self.opened(name, os.O_RDWR)
        try:
            before = whole_of(fd)
            more = self.content(100)
            after = change(before, more)
            self.begin(kind, to=name, digest=digest(after), read=digest(before))
            self.writing = True
            if kind == "append":
                os.lseek(fd, 0, os.SEEK_END)
                written(fd, more)
            else:
                os.pwrite(fd, more[:50], 0)
        finally:
            os.close(fd)
        self.done()

    def swap(self) -> None:
        self._swap("swap", self.some())

    def swap_new(self) -> None:
        self._swap("swap", self.name())

    def _swap(self, kind: str, name: str) -> None:
        """As editors save: a temporary beside it takes the name."""
        temporary = f"{self.name()}.tmp"
        self.whole("new", temporary, content := self.content())
        self.files.remove(temporary)
        self.begin(kind, to=name, digest=digest(content), gone=temporary)
        self.writing = False
        os.rename(self.path(temporary), self.path(name))
        self.done()
        self.keep(name)

    def move(self) -> None:
        old, new = self.some(), self.name()
        self.begin("move", to=new, of=old, gone=old)
        os.rename(self.path(old), self.path(new))
        self.done()
        self.files = [name for name in self.files if name != old]
        self.keep(new)

    def remove(self) -> None:
        name = self.some()
        self.begin("remove", gone=name)
        os.unlink(self.path(name))
        self.done()
        self.files = [other for other in self.files if other != name]

    def deep(self) -> None:
        above = self.name()
        os.mkdir(self.path(above))
        self.whole("new", f"{above}/{self.name()}", self.content())


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def whole_of(fd: int) -> bytes:
    """To the end of the file: a read that comes short may have met the daemon's death, which the next one tells."""
    content = b""
    while piece := os.pread(fd, 1 << 20, len(content)):
        content += piece
    return content


def written(fd: int, content: bytes) -> None:
    while content:
        content = content[os.write(fd, content) :]


if __name__ == "__main__":
    Writer(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]) if len(sys.argv) > 4 else -1).run()
