"""The ``.relay`` tree over a real journal, spool, cache and log, as a program sees it by paths."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fsmount.cache import FileCache
from fsmount.config import Config, parse_remote
from fsmount.errors import FileError
from fsmount.eventlog import FileEventLog
from fsmount.model import Ino
from fsmount.vfs.control import CONTROL_ROOT, ControlTree
from fsmount.vfs.deliveries import Deliveries
from tests.support.facts import Mounted


class Relay:
    """A program's view of the tree, by paths."""

    def __init__(self, directory: Path, *, root: str = "/", hide: bool = False) -> None:
        self.mounted = Mounted(directory, root=root)
        self.log = FileEventLog(directory / "log", self.mounted.clock, limit=20_000)
        self.mounted.journal.tell(self.log)
        self.cache = FileCache(directory / "cache", 1 << 20)
        self.tree = ControlTree(
            configured(directory, hide_relay=hide), self.mounted, self.mounted, self.mounted.spooled, self.cache,
            Deliveries(self.mounted.journal), self.log, self.mounted.clock,
        )  # fmt: skip

    def ino(self, path: str) -> Ino:
        ino = CONTROL_ROOT
        for name in filter(None, path.split("/")):
            ino = self.tree.lookup(ino, name).ino
        return ino

    def exists(self, path: str) -> bool:
        try:
            self.ino(path)
        except FileError as error:
            if error.errno == errno.ENOENT:
                return False
            raise
        return True

    def ls(self, path: str) -> list[str]:
        return [name for name, _ in self.tree.listdir(self.ino(path))]

    def read(self, path: str) -> bytes:
        handle = self.tree.open(self.ino(path))
        try:
            got = b""
            while chunk := self.tree.read(handle, len(got), 100):
                got += chunk
            return got
        finally:
            self.tree.release(handle)

    def log_has(self, words: str) -> bool:
        """Whether the log has these words."""
        return words.encode() in self.read("log")

    async def mv(self, source: str, target: str, flags: int = 1) -> None:
        from_directory, _, name = source.rpartition("/")
        to_directory, _, new_name = target.rpartition("/")
        await self.tree.rename(self.ino(from_directory), name, self.ino(to_directory), new_name or name, flags)


def configured(directory: Path, *, hide_relay: bool = False) -> Config:
    return Config(
        remote=parse_remote("relayfile+http://127.0.0.1:1/ws"), mountpoint=directory, name="notes",
        state_dir=directory, cache_dir=directory, log_file=directory / "log", hide_relay=hide_relay, uid=1000, gid=1001,
    )  # fmt: skip


@contextmanager
def refused(code: int) -> Iterator[None]:
    with pytest.raises(FileError) as raised:
        yield
    assert errno.errorcode[raised.value.errno] == errno.errorcode[code]
