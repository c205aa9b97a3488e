"""A filesystem over a remote in memory, with everything between them but the kernel real."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from msgspec.structs import replace

from fsmount.cache import FileCache
from fsmount.connection import Connection
from fsmount.journal import open_journal
from fsmount.model import Attempt, Change, Digest, Feed, Receipt, RemotePath, Revision
from fsmount.spool import FileSpool
from fsmount.vfs.filesystem import Filesystem
from fsmount.vfs.inodes import Node
from tests.support.clock import ManualClock
from tests.support.facts import TIMING
from tests.support.fake_remote import FakeRemote
from tests.support.notes import Notes
from tests.support.relay import configured
from tests.support.uploads import digest_of

TTL = 5.0


class ToldKernel:
    """What the kernel was told, in order: ``name`` of a directory's number and a name, ``attributes`` of a number."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def entry_changed(self, parent: int, name: str, ino: int | None = None) -> None:
        self.told.append(("name", parent, name))

    def attributes_changed(self, ino: int) -> None:
        self.told.append(("attributes", ino))

    def entries_changed(self, directory: int, entries: Sequence[tuple[str | None, int]]) -> None:
        self.told += [("name", directory, name) for name, _ in entries if name is not None]
        self.told += [("attributes", ino) for _, ino in entries]

    def locked(self, directory: int) -> nullcontext[None]:
        return nullcontext()

    def names(self) -> list[object]:
        """The names that were dropped; forgets all that was told."""
        told, self.told = self.told, []
        return [entry[2] for entry in told if entry[0] == "name"]


class Followed:
    """``feed`` is live. A foreign change is ``write`` or ``remove``; the feed tells of it with ``tell``."""

    def __init__(self, folder: Path, remote: FakeRemote | None = None) -> None:
        self.clock = ManualClock()
        self.remote = remote or FakeRemote()
        self.kernel = ToldKernel()
        self.log = Notes()
        self.connection = Connection(self.remote, self.clock, self.log)
        self.connection.feed = Feed.LIVE
        self.journal = open_journal(folder / "journal.db", self.clock, TIMING)
        self.filesystem = Filesystem(
            replace(configured(folder), attr_ttl=TTL), self.journal, FileSpool(folder / "spool"),
            FileCache(folder / "cache", 1 << 20), self.remote, self.connection, self.kernel, self.clock, self.log,
        )  # fmt: skip
        self.tree = self.filesystem.tree
        self.promises = self.filesystem.promises
        self.arrivals = self.filesystem.arrivals

    # somebody else, and the feed

    def tell(self, path: str, revision: str | None = None, *, digest: str | None = None) -> None:
        """The feed tells of what stands at ``path`` now, or of that revision."""
        stored = self.remote.files.get(RemotePath(path))
        content = None if stored is None else digest_of(stored.content)
        now = stored.revision if stored is not None and revision is None else revision
        told = None if now is None else Revision(now)
        digest_told = content if digest is None else Digest(digest)
        self.arrivals.remote_changed(Change(path=RemotePath(path), revision=told, digest=digest_told))

    def changed(self, path: str, content: bytes) -> None:
        """Somebody else writes, and the feed tells it."""
        self.remote.write(path, content)
        self.tell(path)

    def removed(self, path: str) -> None:
        self.remote.remove(path)
        self.tell(path)

    # the kernel

    async def look(self, path: str) -> Node | None:
        """The kernel looks a path up and knows what it finds."""
        node: Node | None = self.tree.inodes.root
        for name in path.strip("/").split("/"):
            if node is None:
                return None
            node = await self.tree.find(node, name)
        if node is not None:
            node.lookups += 1
        return node

    async def known(self, path: str) -> Node:
        found = await self.look(path)
        assert found is not None
        return found

    async def open(self, node: Node) -> tuple[int, bool]:
        return await self.filesystem.files.open(node, writable=False, truncate=False)

    async def save(self, path: str, content: bytes) -> Node:
        """A program here writes a new file of the root."""
        root, files = self.tree.inodes.root, self.filesystem.files
        node, number = await self.filesystem.create(
            root, path[1:], mode=0o644, uid=0, gid=0, exclusive=False, truncate=True
        )
        node.lookups += 1
        await files.write(number, 0, content)
        await files.flush(number)
        await files.release(number)
        return node

    def delivered(self, path: str, content: bytes | None) -> Revision | None:
        """The uploader has delivered what was done here at ``path``; its revision, None for a delete."""
        (claim,) = self.journal.claim(9)
        if content is None:
            self.remote.remove(path)
            receipt = Receipt(path=claim.op.path, revision=None)
        else:
            revision = self.remote.write(path, content)
            receipt = Receipt(path=claim.op.path, revision=revision, digest=digest_of(content))
        self.journal.acknowledge(claim, receipt, Attempt(at=0.0, status=200, error=None, duration=0.0))
        self.arrivals.acknowledged(claim.op, receipt)
        return receipt.revision

    @property
    def listings(self) -> int:
        """How many were asked for until now."""
        return self.remote.calls["listing"]
