"""The read cache: index and blocks together, and what happens when either is damaged.

Invariant: no error of the cache's disk or database reaches a caller of ``read``, ``store``, ``total`` or ``adopt``: it
is a miss, or something that was not kept.

Threads: every call may come from any; each holds one lock, which ``adopt`` lets go between pieces of 1 MiB.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from fsmount.cache.blocks import Blocks, discard, sweep
from fsmount.cache.index import BLOCK, Held, Index
from fsmount.errors import MachineLacks
from fsmount.model import Body, Chunk, RemotePath
from fsmount.ports import Source

P = ParamSpec("P")
T = TypeVar("T")
_INDEX = "cache.db"
_BLOCKS = "blocks"
_DISCARDED = "discarded-"
_ADOPTED = 8 * 1024**2
"""Longer bodies are not copied: reading them back is rare, and copying would take longer than it saves."""
_PIECE = 8 * BLOCK
_FULL = 0.98
_SHARE = 0.9
"""The share of the limit that one file may fill: more of it would push itself out."""
_BATCH = 64
_SOUND = (
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_READONLY,
)
"""Errors that say nothing against the database itself."""


class FileCache:
    """The cache in ``directory`` (made if it is not there), of at most ``limit`` bytes; see ``Cache`` in ports.

    Raises MachineLacks where the directory cannot be used at all; with a full disk it begins empty and keeps nothing.
    """

    def __init__(self, directory: Path, limit: int) -> None:
        self._directory = directory
        self._limit = limit
        self._used = 0
        self._hits = 0
        self._misses = 0
        self._lock = threading.RLock()
        self._index: Index | None = None
        self.sweeping: threading.Thread | None = None
        """Removes what a crash or a damaged index left behind; None where there was nothing."""
        try:
            os.makedirs(directory, mode=0o700, exist_ok=True)
            self._blocks = Blocks(directory / _BLOCKS)
        except OSError as error:
            raise MachineLacks(
                f"cannot use the cache directory {directory}: {error.strerror}",
                hint="make this directory writable, or name another one with --cache-dir",
            ) from error
        self._begin()

    @property
    def used(self) -> int:
        """Bytes of content held."""
        return self._used

    @property
    def limit(self) -> int:
        """Bytes of content that may be held."""
        return self._limit

    @property
    def hits(self) -> int:
        """Reads answered since the start."""
        return self._hits

    @property
    def misses(self) -> int:
        """Reads not answered since the start."""
        return self._misses

    def read(self, path: RemotePath, version: str, offset: int, size: int) -> bytes | None:
        """``size`` bytes (fewer at the end of the file), or None where not all of them are held intact."""
        key = _key(path, version)
        with self._lock:
            content = self._trying(self._read, key, offset, size)
            if content is None:
                self._misses += 1
            else:
                self._hits += 1
        return content

    def store(self, path: RemotePath, version: str, chunk: Chunk) -> bool:
        """Keeps the whole blocks of ``chunk``: those it covers, the last one as far as the file goes; or none."""
        if not 0 <= chunk.start <= chunk.start + len(chunk.data) <= chunk.total:
            return False
        key = _key(path, version)
        with self._lock:
            return self._trying(self._keep, key, chunk.total, chunk.start, chunk.data) is True

    def total(self, path: RemotePath, version: str) -> int | None:
        """The exact size of that version if it was ever stored, whether its blocks are still here or not."""
        with self._lock:
            held = self._trying(Index.find, _key(path, version))
        return None if held is None else held.total

    def adopt(self, path: RemotePath, version: str, body: Body, source: Source) -> None:
        """Copies a body that the remote has as ``version`` now, up to 8 MiB; of a longer one only the size is kept."""
        if source.size != body.size:
            return
        key = _key(path, version)
        for start in range(0, body.size if 0 < body.size <= _ADOPTED else 1, _PIECE):
            try:
                content = source.read(start, _PIECE) if body.size <= _ADOPTED else b""
            except OSError:
                return
            with self._lock:
                self._trying(self._keep, key, body.size, start, content)

    def close(self) -> None:
        """Saves when each file was used last; a second call does nothing."""
        with self._lock:
            index, self._index = self._index, None
            if index is not None:
                try:
                    index.close()
                except sqlite3.Error:
                    pass

    def _read(self, index: Index, key: bytes, offset: int, size: int) -> bytes | None:
        held = index.find(key)
        if held is None:
            return None
        end = min(offset + size, held.total)
        if offset >= end:
            return b""
        first, stop = offset // BLOCK, -(-end // BLOCK)
        checksums = index.checksums(held, first, stop)
        if checksums is None:
            return None
        begin = first * BLOCK
        content = self._blocks.read(key, first, min(stop * BLOCK, held.total) - begin, checksums)
        if content is None:
            self._drop(index, [held])
            return None
        return content[offset - begin : end - begin]

    def _keep(self, index: Index, key: bytes, total: int, start: int, content: bytes) -> bool:
        held = index.find(key)
        if held is None or held.total != total:
            if held is not None:
                self._drop(index, [held])
            held = index.add(key, total)
        end = start + len(content)
        first, stop = -(-start // BLOCK), -(-total // BLOCK) if end == total else end // BLOCK
        if first >= stop:
            return False
        growth = index.missing(held, first, stop)
        if held.held + growth > self._limit * _SHARE or not self._blocks.has_room(growth):
            return False
        whole = memoryview(content)[first * BLOCK - start : min(stop * BLOCK, total) - start]
        index.keep(held, first, self._blocks.write(key, first, whole), growth)
        self._used += growth
        self._evict(index)
        return True

    def _evict(self, index: Index) -> None:
        """Makes room in batches, so that not every store has to; the file just stored goes last."""
        while self._used > self._limit:
            batch: list[Held] = []
            freed = 0
            for held in index.oldest(_BATCH):
                if self._used - freed <= self._limit * _FULL:
                    break
                batch.append(held)
                freed += held.held
            if not batch:
                return
            self._drop(index, batch)

    def _drop(self, index: Index, files: list[Held]) -> None:
        index.drop(files)
        self._used -= sum(held.held for held in files)
        for held in files:
            held.held = 0
            self._blocks.remove(held.key)

    def _trying(self, act: Callable[Concatenate[Index, P], T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """What ``act`` gives, or None where the disk or the database does not allow it."""
        if self._index is None:
            return None
        try:
            return act(self._index, *args, **kwargs)
        except OSError:
            return None
        except sqlite3.Error as error:
            self._recover(self._index, damaged=_is_damage(error))
            return None

    def _recover(self, index: Index, *, damaged: bool) -> None:
        try:
            if not damaged:
                index.recover()
                self._used = index.used()
                return
        except sqlite3.Error:
            pass
        index.abandon()
        self._start_over()

    def _begin(self) -> None:
        started = time.time()
        try:
            self._index = self._open_index()
            orphans = self._index.was_open
        except sqlite3.Error as error:
            if not _is_damage(error):
                return
            self._start_over()
            return
        self._sweep_in_thread(started if orphans else None)

    def _open_index(self) -> Index:
        index = Index(self._directory / _INDEX)
        try:
            self._used = index.used()
        except sqlite3.Error:
            index.abandon()
            raise
        return index

    def _start_over(self) -> None:
        """Moves the damaged index aside and begins empty; keeps nothing from now on where even that fails."""
        self._index = None
        self._used = 0
        path = self._directory / _INDEX
        try:
            for suffix in ("-wal", "-shm"):
                path.with_name(_INDEX + suffix).unlink(missing_ok=True)
            os.replace(path, path.with_name(_INDEX + ".damaged"))
            os.rename(self._directory / _BLOCKS, self._directory / f"{_DISCARDED}{time.time_ns():x}")
            self._blocks = Blocks(self._directory / _BLOCKS)
            self._index = self._open_index()
        except (OSError, sqlite3.Error):
            return
        self._sweep_in_thread(None)

    def _sweep_in_thread(self, orphans_before: float | None) -> None:
        """Removes discarded blocks, and those older than ``orphans_before`` that the index does not list."""
        discarded = list(self._directory.glob(_DISCARDED + "*"))
        if discarded or orphans_before is not None:
            self.sweeping = threading.Thread(target=self._sweep, args=(discarded, orphans_before), daemon=True)
            self.sweeping.start()

    def _sweep(self, discarded: list[Path], orphans_before: float | None) -> None:
        for directory in discarded:
            discard(directory)
        if orphans_before is not None:
            sweep(self._directory / _BLOCKS, orphans_before, self._lists)

    def _lists(self, key: bytes) -> bool:
        """Whether blocks of ``key`` are held, or that cannot be told."""
        with self._lock:
            return self._trying(Index.lists, key) is not False


def _key(path: RemotePath, version: str) -> bytes:
    return hashlib.sha256(f"{path}\0{version}".encode("utf-8", "surrogateescape")).digest()


def _is_damage(error: sqlite3.Error) -> bool:
    """Whether the database is damaged or not one of ours; a code's low byte is the primary one (sqlite.org/rescode)."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF not in _SOUND
