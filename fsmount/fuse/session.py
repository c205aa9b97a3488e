"""The FUSE session: mounting, the loop, and taking over a dead mount point.

Invariant: the mount is taken away only on a clean end; after a crash its point stays dead, because an empty directory
would be mirrored by a backup.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pyfuse3

from fsmount.errors import MachineLacks, StateError
from fsmount.mounttable import mounted_at

MAX_TASKS = 1000
"""Requests that may be answered at once; far more than may wait for the remote, so that ``.relay`` always answers."""


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
