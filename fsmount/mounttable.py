"""What the kernel says is mounted, read from ``/proc/self/mountinfo`` (proc_pid_mountinfo(5)).

Invariant: nothing here touches a mount point, so it answers even where a mount is dead or wedged.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from msgspec import Struct

FSTYPE = "fuse.fsmount"
MOUNTINFO = Path("/proc/self/mountinfo")


class MountLine(Struct, frozen=True, kw_only=True):
    """One mount. ``device`` is ``MAJOR:MINOR``; a FUSE connection is named after its minor number.

    ``user`` is the uid that mounted it, None where the line does not tell.
    """

    mountpoint: str
    fstype: str
    source: str
    device: str
    user: int | None = None

    @property
    def ours(self) -> bool:
        """Whether this program made it."""
        return self.fstype == FSTYPE

    @property
    def minor(self) -> int:
        """The minor device number: ``/sys/fs/fuse/connections/N``."""
        return int(self.device.partition(":")[2])


def mounts(source: Path = MOUNTINFO) -> list[MountLine]:
    """Every mount that this process sees, in the order in which they were made visible."""
    return [parsed for line in source.read_bytes().splitlines() if (parsed := parse(line)) is not None]


def parse(line: bytes) -> MountLine | None:
    """One line of mountinfo; None where it has another shape. Any number of optional fields ends at a lone ``-``."""
    fields = line.split(b" ")
    try:
        dash = fields.index(b"-", 6)
        fstype, source = fields[dash + 1], fields[dash + 2]
    except (ValueError, IndexError):
        return None
    user = re.search(rb"(?:^|,)user_id=(\d+)", b" ".join(fields[dash + 3 :]))
    return MountLine(
        mountpoint=unescape(fields[4]),
        fstype=unescape(fstype),
        source=unescape(source),
        device=os.fsdecode(fields[2]),
        user=int(user[1]) if user else None,
    )


def unescape(field: bytes) -> str:
    r"""Undoes the kernel's ``\040`` for space, tab, newline and backslash."""
    return os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), field))


def mounted_at(path: str, table: list[MountLine] | None = None) -> MountLine | None:
    """What is visible exactly at ``path`` (absolute, without links); of stacked mounts the topmost."""
    found = [line for line in (mounts() if table is None else table) if line.mountpoint == path]
    return found[-1] if found else None


def is_within(path: str, directory: str) -> bool:
    """Whether ``path`` is ``directory`` or lies beneath it; by text only."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")
