"""Every name in ``.relay`` and its inode number.

Invariant: a name keeps its number for good. Numbers are at or above ``CONTROL``; no two names share one.
"""

from __future__ import annotations

import errno
import hashlib

from msgspec import Struct

from fsmount.errors import FileError
from fsmount.model import Ino, OpId, State
from fsmount.vfs.inodes import CONTROL

CONTROL_ROOT = Ino(CONTROL + 1)
CONTENT, CONFLICT, RETRY, FORCE, DISCARDED = "content", "conflict", "retry", "force", "discarded"
CTL = "ctl"
_DIRECTORIES = {
    "pending": 2, "dead-letter": 3, "held": 7, DISCARDED: 4, CONTENT: 5, CONFLICT: 9, RETRY: 6, FORCE: 8,
}  # fmt: skip
_FILES = {
    "README": 16, "status": 17, "status.json": 18, "state.json": 19, "metrics": 22, "config.json": 23, "problems": 24,
    CTL: 25, ".gitignore": 20, "CACHEDIR.TAG": 21,
}  # fmt: skip
DIRECTORIES = tuple(_DIRECTORIES)
FILES = tuple(_FILES)
STREAMS = {"log": CONTROL + (1 << 32), "events": CONTROL + (2 << 32)}
"""Each generation of a stream has a number of its own, counted from here."""
STATES = {
    "pending": (State.PENDING, State.SENDING),
    "dead-letter": (State.DEAD,),
    "held": (State.HELD,),
    DISCARDED: (State.DISCARDED,),
    CONTENT: tuple(State),
    RETRY: (),
    FORCE: (),
}
"""The ops that each directory lists, by their states."""
_OPS = CONTROL + (1 << 61)
_BY_INO = {Ino(CONTROL + number): name for name, number in (_DIRECTORIES | _FILES).items()}


def number_of(name: str) -> Ino:
    """The inode number of a fixed name."""
    return Ino(CONTROL + (_DIRECTORIES | _FILES)[name])


def fixed_name(ino: Ino) -> str | None:
    """The fixed name that has this number."""
    return _BY_INO.get(ino)


class OpName(Struct, frozen=True):
    """One op as a name in one of the directories; with ``version``, one of the three files of its conflict."""

    directory: str
    op_id: OpId
    version: str = ""

    @property
    def ino(self) -> Ino:
        """Always the same for this op in this directory."""
        text = "/".join(filter(None, (self.directory, self.op_id, self.version)))
        digest = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest()
        return Ino(_OPS + (int.from_bytes(digest) >> 3))

    @property
    def name(self) -> str:
        """``OP.json``; in ``content/`` and ``conflict/`` the bare id."""
        return self.version or (self.op_id if self.directory in (CONTENT, CONFLICT) else f"{self.op_id}.json")

    @property
    def is_directory(self) -> bool:
        """Whether it is that of a conflict."""
        return self.directory == CONFLICT and not self.version


def op_named(directory: str, name: str) -> OpName:
    """The op of that name; FileError ENOENT for a name that no op can have there."""
    found = OpName(directory, OpId(name.removesuffix(".json")))
    if found.name != name or not name.isascii():
        raise FileError(errno.ENOENT)
    return found
