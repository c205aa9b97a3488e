"""Tells the kernel that something changed behind its back, from threads of its own.

Invariant: nothing here is called on the loop but what only queues. To drop a name the kernel takes the lock of the
directory, and it holds that lock while a request in the directory is being answered: a thread that asked for it on the
loop would wait for itself, and one that is waiting when the daemon is killed keeps the connection open that the request
waits for. So a name is told when those requests in its directory are answered that were under way when it was queued.
Attributes and poll(2) need no lock: they have a thread to themselves, and are told at once.

What concerns one directory is told in order by one thread at a time; that of others goes on in other threads. What is
queued already is not queued again: it is told after it was asked for in any case.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence

import pyfuse3

from fsmount.fuse.names import encoded

HELD_UP = 1.0
"""Seconds that the last notifications may take at the end."""
THREADS = 4
"""So many directories may hold a thread up, each until a request in it is answered, before others wait too."""
UNLOCKED = 0
"""The lane of what waits for no directory; no inode has this number."""

NO_NAME = b"/"
"""What no directory has: to drop it only waits for the directory's lock."""

Job = Callable[[], None]


class KernelNotifier:
    """Implements ports.KernelCache."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lanes: dict[int, OrderedDict[Hashable, Job]] = {}
        """What is to be told, by directory; a lane in here is ready, being told, or waits for ``_awaited``."""
        self._under_way: dict[int, set[object]] = {}
        self._awaited: dict[int, set[object]] = {}
        self._ready: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._ready_unlocked: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        served = [self._ready_unlocked, *[self._ready] * THREADS]
        self._threads = [
            threading.Thread(target=self._run, args=(ready,), name=f"kernel-cache-{n}", daemon=True)
            for n, ready in enumerate(served)
        ]
        for thread in self._threads:
            thread.start()
        self.count = 0
        """Invalidations asked for since the start."""

    # ports.KernelCache

    def entry_changed(self, parent: int, name: str, ino: int | None = None) -> None:
        """Also drops the attributes of ``ino`` once the name is gone: of an inode that a lookup answered just before
        was still about to make, nothing can be dropped earlier.
        """
        self.count += 1
        told = encoded(name)

        def tell() -> None:
            with contextlib.suppress(OSError):
                pyfuse3.invalidate_entry(pyfuse3.InodeT(parent), told)
            if ino is not None:
                pyfuse3.invalidate_inode(pyfuse3.InodeT(ino), attr_only=True)

        self._put(parent, (name, ino), tell)

    def attributes_changed(self, ino: int) -> None:
        self.count += 1
        self._put(UNLOCKED, ino, lambda: pyfuse3.invalidate_inode(pyfuse3.InodeT(ino), attr_only=True))

    def entries_changed(self, directory: int, entries: Sequence[tuple[str | None, int]]) -> None:
        self.count += len(entries)
        names = [NO_NAME, *(encoded(name) for name, _ in entries if name is not None)]

        def tell() -> None:
            for name in names:
                with contextlib.suppress(OSError):
                    pyfuse3.invalidate_entry(pyfuse3.InodeT(directory), name)
            for _, ino in entries:
                with contextlib.suppress(OSError):
                    pyfuse3.invalidate_inode(pyfuse3.InodeT(ino), attr_only=True)

        self._put(directory, tuple(entries), tell)

    # for the requests

    def wake(self, notify: Job) -> None:
        """Wakes those who wait in poll(2), by ``PollHandle.notify``; may be called on any thread."""
        self._put(UNLOCKED, notify, notify)

    @contextlib.contextmanager
    def locked(self, directory: int) -> Iterator[None]:
        """While a request is answered during which the kernel holds the lock of the directory."""
        request = object()
        self._under_way.setdefault(directory, set()).add(request)
        try:
            yield
        finally:
            self._answered(directory, request)

    def close(self) -> None:
        """Sends nothing more; before the session ends, because a poll's handle points into it.

        A notification that the kernel holds up is left to the session's end.
        """
        self._ready_unlocked.put(None)
        for _ in range(THREADS):
            self._ready.put(None)
        deadline = time.monotonic() + HELD_UP
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    # lanes

    def _put(self, lane: int, key: Hashable, job: Job) -> None:
        with self._lock:
            jobs = self._lanes.get(lane)
            if jobs is not None:
                jobs.setdefault(key, job)
                return
            self._lanes[lane] = OrderedDict({key: job})
            under_way = self._under_way.get(lane)
            if under_way:
                self._awaited[lane] = set(under_way)
                return
        (self._ready_unlocked if lane == UNLOCKED else self._ready).put(lane)

    def _answered(self, directory: int, request: object) -> None:
        under_way = self._under_way[directory]
        under_way.remove(request)
        if not under_way:
            del self._under_way[directory]
        awaited = self._awaited.get(directory)
        if awaited is None:
            return
        awaited.discard(request)
        if not awaited:
            del self._awaited[directory]
            self._ready.put(directory)

    def _run(self, ready: queue.SimpleQueue[int | None]) -> None:
        while (lane := ready.get()) is not None:
            while (job := self._next(lane)) is not None:
                # ENOENT (the kernel did not know it) is the normal case; anything else means the session is ending.
                with contextlib.suppress(OSError):
                    job()

    def _next(self, lane: int) -> Job | None:
        with self._lock:
            jobs = self._lanes[lane]
            if jobs:
                return jobs.popitem(last=False)[1]
            del self._lanes[lane]
            return None
