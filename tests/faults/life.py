"""Everything of a mount below FUSE, on real disk, with a remote in memory: it can be killed and started again.

Invariant: of a life nothing is left in the next one but the state directory, read as ``kill -9`` leaves it, and the
remote.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar, cast

import trio

from fsmount.app.commands import Decisions
from fsmount.app.recovery import recover, remove_released
from fsmount.config import Config, parse_remote
from fsmount.connection import Connection
from fsmount.eventlog import FileEventLog
from fsmount.journal import SqliteJournal, open_journal
from fsmount.model import Body, Chunk, DraftId, Kind, Record, RemotePath, State, Timing, name_of, parent_of
from fsmount.ports import Clock, Remote, Source
from fsmount.retry import Policy
from fsmount.spool import FileSpool
from fsmount.spool.draft import DraftFile
from fsmount.spool.files import BodyFile
from fsmount.uploader import Uploader
from fsmount.vfs.filesystem import Filesystem
from fsmount.vfs.inodes import Node
from tests.faults.crash import JOURNAL, REMOTE, SPOOL, CrashAt, Watched
from tests.support.fake_remote import FakeRemote
from tests.support.notes import Notes

F = TypeVar("F", BodyFile, DraftFile)
TIMING = Timing(settle=0.3, max_settle=3.0, delete_settle=2.0, open_settle=5.0)
SWEEP = 0.05


class NoKernel:
    """A kernel that caches nothing."""

    def entry_changed(self, parent: int, name: str, ino: int | None = None) -> None: ...
    def attributes_changed(self, ino: int) -> None: ...
    def entries_changed(self, directory: int, entries: Sequence[tuple[str | None, int]]) -> None: ...


class NoCache:
    """Holds nothing, as a cache may: what is read of the remote is fetched each time."""

    used = limit = hits = misses = 0

    def read(self, path: RemotePath, version: str, offset: int, size: int) -> bytes | None:
        return None

    def store(self, path: RemotePath, version: str, chunk: Chunk) -> bool:
        return False

    def total(self, path: RemotePath, version: str) -> int | None:
        return None

    def adopt(self, path: RemotePath, version: str, body: Body, source: Source) -> None: ...
    def close(self) -> None: ...


class Mortal(FileSpool):
    """A spool whose descriptors go with its process."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._opened: list[BodyFile | DraftFile] = []

    def create(self) -> DraftFile:
        return self._remembered(super().create())

    def open_draft(self, draft_id: DraftId) -> DraftFile:
        return self._remembered(super().open_draft(draft_id))

    def open(self, body: Body) -> BodyFile:
        return self._remembered(super().open(body))

    def _remembered(self, file: F) -> F:
        self._opened.append(file)
        return file

    def die(self) -> None:
        for file in self._opened:
            file.close()


class Life:
    """One life of a daemon. ``recover`` comes first; ``run`` is what it does beside the programs, who call the rest."""

    def __init__(
        self, folder: Path, remote: FakeRemote, clock: Clock, crash: CrashAt, *, max_attempts: int = 8
    ) -> None:
        self.folder = folder
        self.remote = remote
        self.clock = clock
        self.crash = crash
        self.log = Notes()
        self.plain_journal = open_journal(folder / "journal.db", clock, TIMING)
        self.plain_spool = Mortal(folder / "spool")
        self.journal = cast("SqliteJournal", Watched(self.plain_journal, crash, JOURNAL))
        self.spool = cast("FileSpool", Watched(self.plain_spool, crash, SPOOL))
        watched = cast("Remote", Watched(remote, crash, REMOTE))
        config = configured(folder)
        self.connection = Connection(watched, clock, self.log)
        self.filesystem = Filesystem(
            config, self.journal, self.spool, NoCache(), watched, self.connection, NoKernel(), clock, self.log
        )
        self.uploader = Uploader(
            self.journal, self.spool, watched, self.connection, self.filesystem.arrivals, clock, self.log,
            Policy(max_attempts=max_attempts),
        )  # fmt: skip
        self.decisions = Decisions(self.journal, self.filesystem.arrivals, self.uploader, self.log)

    def recover(self) -> None:
        """What a start does before anything else."""
        recover(self.journal, self.spool, cast("FileEventLog", self.log))

    async def run(self) -> None:
        """Uploads, probes and sweeps until it is cancelled or killed."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.uploader.run)
            nursery.start_soon(self.connection.run)
            nursery.start_soon(self._sweep)

    async def _sweep(self) -> None:
        changed = trio.Event()

        def note() -> None:
            nonlocal changed
            changed.set()
            changed = trio.Event()

        self.plain_journal.watch(note)
        while True:
            await changed.wait()
            await trio.sleep(SWEEP)
            if leaving := self.journal.leaving():
                self.journal.durable()
                remove_released(leaving, self.journal, self.spool)

    def end(self) -> None:
        """The process is gone, and the journal's files are as it left them: closing would tidy them up."""
        self.crash.kill()
        files = [self.folder / name for name in ("journal.db", "journal.db-wal")]
        left = [(file, file.read_bytes()) for file in files if file.exists()]
        self.plain_journal.close()
        self.plain_spool.die()
        for file, content in left:
            file.write_bytes(content)

    # what programs do, by path

    async def node(self, path: str) -> Node | None:
        node: Node | None = self.filesystem.tree.inodes.root
        for name in filter(None, path.split("/")):
            if node is None or node.kind is not Kind.DIRECTORY:
                return None
            node = await self.filesystem.tree.find(node, name)
        return node

    async def above(self, path: str) -> tuple[Node, str]:
        parent = await self.node(parent_of(RemotePath(path)))
        if parent is None:
            raise FileNotFoundError(path)
        return parent, name_of(RemotePath(path))

    async def read(self, path: str) -> bytes | None:
        """The whole content; None where there is no file."""
        node = await self.node(path)
        if node is None or node.kind is not Kind.FILE:
            return None
        number, _ = await self.filesystem.files.open(node, writable=False, truncate=False)
        try:
            return await self.filesystem.files.read(number, 0, 1 << 20)
        finally:
            await self.filesystem.files.release(number)

    async def create(self, path: str, *, truncate: bool = True) -> int:
        parent, name = await self.above(path)
        _, number = await self.filesystem.create(
            parent, name, mode=0o644, uid=0, gid=0, exclusive=False, truncate=truncate
        )
        return number

    async def write(self, number: int, content: bytes, *, at: int = 0) -> None:
        await self.filesystem.files.write(number, at, content)

    async def flush(self, number: int) -> None:
        await self.filesystem.files.flush(number)

    async def release(self, number: int) -> None:
        await self.filesystem.files.release(number)

    async def save(self, path: str, content: bytes) -> None:
        """Whole, and closed: the kernel's release follows the flush that close(2) waits for."""
        number = await self.create(path)
        await self.write(number, content)
        await self.flush(number)
        await self.release(number)

    async def append(self, path: str, content: bytes) -> None:
        number = await self.create(path, truncate=False)
        await self.write(number, content, at=self.filesystem.files.handle(number).node.shown.size or 0)  # type: ignore[union-attr]
        await self.flush(number)
        await self.release(number)

    async def unlink(self, path: str) -> None:
        await self.filesystem.unlink(*await self.above(path))

    async def mkdir(self, path: str) -> None:
        parent, name = await self.above(path)
        await self.filesystem.mkdir(parent, name, mode=0o755, uid=0, gid=0)

    async def rmdir(self, path: str) -> None:
        await self.filesystem.rmdir(*await self.above(path))

    async def rename(self, old: str, new: str) -> None:
        parent, name = await self.above(old)
        to_parent, to_name = await self.above(new)
        await self.filesystem.rename(parent, name, to_parent, to_name, replace_target=True)

    async def truncate(self, path: str, size: int) -> None:
        node = await self.node(path)
        assert node is not None
        await self.filesystem.setattr(node, size=size)

    # what is in the journal

    def records(self, *states: State) -> list[Record]:
        """Oldest first; each whole."""
        found = [self.plain_journal.record(record.op.op_id) for record in self.plain_journal.records()]
        return [record for record in reversed(found) if record is not None and (not states or record.state in states)]

    def dead(self) -> list[Record]:
        return self.records(State.DEAD)

    def content(self, body: Body | None) -> bytes | None:
        """The bytes of an op as ``.relay/content`` shows them; None where it has none."""
        if body is None:
            return None
        source = self.plain_spool.open(body)
        try:
            return source.read(0, source.size)
        finally:
            source.close()

    def kept(self) -> set[bytes]:
        """Every content that the journal keeps: of ops, and of what they would replace."""
        records = self.records()
        bodies = [record.op.body for record in records]
        bodies += [record.theirs.body for record in records if record.theirs is not None]
        return {content for body in bodies if (content := self.content(body)) is not None}

    @property
    def waiting(self) -> int:
        counts = self.plain_journal.counts()
        return counts.pending + counts.sending


def emptied(folder: Path) -> Path:
    """The state directory as a first mount finds it; the spool's 256 folders stay, for making them takes longest."""
    for name in ("journal.db", "journal.db-wal"):
        (folder / name).unlink(missing_ok=True)
    spool = FileSpool(folder / "spool")
    for body in spool.unnamed((), ()):
        spool.remove(body)
    return folder


def configured(folder: Path) -> Config:
    return Config(
        remote=parse_remote("relayfile+http://127.0.0.1:1/ws"), mountpoint=folder, name="notes", state_dir=folder,
        cache_dir=folder / "cache", log_file=folder / "log", timeout=30.0, attr_ttl=5.0,
    )  # fmt: skip
