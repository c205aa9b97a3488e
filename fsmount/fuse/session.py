"""The FUSE session: mounting, the loop, the kernel's caches, and taking over a dead mount point.

Invariant: the mount is taken away only on a clean end; after a crash its point stays dead, because an empty directory
would be mirrored by a backup. Invalidations run in a thread of their own: on the loop they would deadlock with a read
of the same inode.
"""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pyfuse3

from fsmount.errors import MachineLacks, StateError
from fsmount.fuse.names import encoded
from fsmount.mounttable import mounted_at
from fsmount.ports import EventLog

_HELD_UP = 1.0
"""Seconds that a last notification may take."""
MAX_TASKS = 1000
"""Requests that may be answered at once; far more than may wait for the remote, so that ``.relay`` always answers."""


class KernelNotifier:
    """Implements ports.KernelCache with one worker thread."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="kernel-cache", daemon=True)
        self._thread.start()
        self.count = 0
        """Invalidations asked for since the start."""

    def entry_changed(self, parent: int, name: str) -> None:
        inode, told = pyfuse3.InodeT(parent), encoded(name)
        self._invalidate(lambda: pyfuse3.invalidate_entry_async(inode, told, ignore_enoent=True))

    def content_changed(self, ino: int) -> None:
        self._invalidate(lambda: pyfuse3.invalidate_inode(pyfuse3.InodeT(ino), attr_only=False))

    def attributes_changed(self, ino: int) -> None:
        self._invalidate(lambda: pyfuse3.invalidate_inode(pyfuse3.InodeT(ino), attr_only=True))

    def wake(self, notify: Callable[[], None]) -> None:
        """Wakes those who wait in poll(2), by ``PollHandle.notify``; may be called on any thread."""
        self._jobs.put(notify)

    def _invalidate(self, tell: Callable[[], None]) -> None:
        self.count += 1
        self._jobs.put(tell)

    def close(self) -> None:
        """Sends nothing more; before the session ends, because a poll's handle points into it.

        A notification that the kernel holds up is left to the session's end.
        """
        self._jobs.put(None)
        self._thread.join(_HELD_UP)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            # ENOENT (the kernel did not know it) is the normal case; anything else means the session is ending.
            with contextlib.suppress(OSError):
                job()


def mount(
    operations: pyfuse3.Operations,
    mountpoint: Path,
    *,
    fsname: str,
    allow_other: bool,
    read_only: bool,
    noexec: bool,
    bare: Callable[[Path], None],
) -> None:
    """Mounts; takes a dead mount point over with nothing between unmounting and mounting but one quick look.

    ``bare`` is called when the directory shows what lies in it, just before that is covered. Raises MachineLacks,
    StateError.
    """
    options = set(pyfuse3.default_options)
    options |= {f"fsname={fsname.replace(',', '%2C')}", "subtype=fsmount", "default_permissions"}
    flags = {"allow_other": allow_other, "ro": read_only, "noexec": noexec}
    options |= {flag for flag, wanted in flags.items() if wanted}
    if mounted_at(str(mountpoint)) is not None:
        _take_away_dead(mountpoint)
    bare(mountpoint)
    complaint = os.memfd_create("complaint")
    try:
        with _standard_error(complaint):
            pyfuse3.init(operations, str(mountpoint), options)
    except RuntimeError as error:
        said = os.pread(complaint, 4096, 0).decode(errors="replace").strip().splitlines()
        raise MachineLacks(
            f"{mountpoint} could not be mounted: {said[0] if said else error}",
            hint="'fsmount doctor' looks at what a mount needs",
        ) from error
    finally:
        os.close(complaint)


@contextlib.contextmanager
def _standard_error(descriptor: int) -> Iterator[None]:
    """What libfuse and fusermount3 complain of goes there: a daemon has no standard error that anybody reads."""
    kept = os.dup(2)
    os.dup2(descriptor, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _take_away_dead(mountpoint: Path) -> None:
    done = subprocess.run(["fusermount3", "-uz", str(mountpoint)], capture_output=True, text=True, check=False)
    if done.returncode and mounted_at(str(mountpoint)) is not None:
        raise StateError(f"{mountpoint} is a dead mount that could not be taken away: {done.stderr.strip()}")


async def serve() -> None:
    """Answers requests until ``stop`` is called or the mount is taken away by somebody."""
    await pyfuse3.main(min_tasks=4, max_tasks=MAX_TASKS)


def stop() -> None:
    """Makes ``serve`` return."""
    pyfuse3.terminate()


def close(*, unmount: bool) -> None:
    """Ends the session; ``unmount`` only after a clean run."""
    pyfuse3.close(unmount=unmount)
