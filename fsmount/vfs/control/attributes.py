"""What ``stat`` shows of anything in ``.relay``.

Invariant: all of it belongs to the user who mounted, and to nobody else.
"""

from __future__ import annotations

from msgspec import Struct

from fsmount.model import Attr, Ino, Kind


class Owner(Struct, frozen=True):
    """The user who mounted."""

    uid: int
    gid: int

    def file(self, ino: Ino, size: int, at: float, mode: int = 0o400) -> Attr:
        """A file; ``at`` is its mtime and ctime, epoch seconds."""
        return Attr(ino=ino, kind=Kind.FILE, size=size, mode=mode, uid=self.uid, gid=self.gid, mtime=at, ctime=at)

    def directory(self, ino: Ino, at: float, within: int = 0) -> Attr:
        """A directory; ``within`` is how many others it has."""
        return Attr(
            ino=ino, kind=Kind.DIRECTORY, size=0, mode=0o700, uid=self.uid, gid=self.gid, mtime=at, ctime=at,
            nlink=2 + within,
        )  # fmt: skip
