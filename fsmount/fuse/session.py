"""The FUSE session: mounting, the loop, the kernel's caches, and taking over a dead mount point.

Invariant: the mount is taken away only on a clean end; after a crash its point stays dead, because an empty directory
would be mirrored by a backup. Invalidations run in a thread of their own: on the loop they would deadlock with a read
of the same inode.
"""

from __future__ import annotations

import contextlib
import queue
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pyfuse3

from fsmount.errors import MachineLacks, StateError
from fsmount.fuse.names import encoded
from fsmount.mounttable import mounted_at
from fsmount.ports import EventLog

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
        """Invalidations sent since the start."""

    def entry_changed(self, parent: int, name: str) -> None:
        inode, told = pyfuse3.InodeT(parent), encoded(name)
        self._jobs.put(lambda: pyfuse3.invalidate_entry_async(inode, told, ignore_enoent=True))

    def content_changed(self, ino: int) -> None:
        self._jobs.put(lambda: pyfuse3.invalidate_inode(pyfuse3.InodeT(ino), attr_only=False))

    def attributes_changed(self, ino: int) -> None:
        self._jobs.put(lambda: pyfuse3.invalidate_inode(pyfuse3.InodeT(ino), attr_only=True))

    def close(self) -> None:
        """Sends nothing more."""
        self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            # ENOENT (the kernel did not know it) is the normal case; anything else means the session is ending.
            with contextlib.suppress(OSError):
                job()
            self.count += 1


def mount(operations: pyfuse3.Operations, mountpoint: Path, *, fsname: str, allow_other: bool, read_only: bool) -> None:
    """Mounts; takes a dead mount point over with nothing between unmounting and mounting.

    Raises MachineLacks, StateError.
    """
    options = set(pyfuse3.default_options)
    options |= {f"fsname={fsname.replace(',', '%2C')}", "subtype=fsmount", "default_permissions"}
    if allow_other:
        options.add("allow_other")
    if read_only:
        options.add("ro")
    if mounted_at(str(mountpoint)) is not None:
        _take_away_dead(mountpoint)
    try:
        pyfuse3.init(operations, str(mountpoint), options)
    except RuntimeError as error:
        raise MachineLacks(
            f"{mountpoint} could not be mounted: {error}",
            hint="fusermount3 said why above; allow_other needs user_allow_other in /etc/fuse.conf"
            if allow_other
            else None,
        ) from error


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
