"""Who keeps a mount busy, from ``/proc`` (proc(5)).

Invariant: links are read and compared as text; nothing beneath the mount point is looked up.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from fsmount.mounttable import MountLine, is_within, mounts

PROC = Path("/proc")
_DELETED = " (deleted)"


class HeldBy(Struct, frozen=True, kw_only=True):
    """One process and what it has of the mount."""

    pid: int
    program: str
    what: str

    def __str__(self) -> str:
        return f"pid {self.pid} ({self.program}): {self.what}"


def holders(mountpoint: str, *, besides: frozenset[int] = frozenset(), proc: Path = PROC) -> list[HeldBy]:
    """Every process, as far as this user may look, that has a file open, mapped, run or as a directory in the mount."""
    found: list[HeldBy] = []
    for name in os.listdir(proc):
        if not name.isdigit() or int(name) in besides:
            continue
        what = next((use for use in _uses(proc / name) if is_within(use[1], mountpoint)), None)
        if what is not None:
            found.append(HeldBy(pid=int(name), program=_program(proc / name), what=f"{what[0]} {what[1]}"))
    return sorted(found, key=lambda one: one.pid)


def mounted_below(mountpoint: str, table: list[MountLine] | None = None) -> list[str]:
    """What else is mounted inside the mount."""
    lines = mounts() if table is None else table
    return sorted(
        {line.mountpoint for line in lines if line.mountpoint != mountpoint and is_within(line.mountpoint, mountpoint)}
    )


def _uses(process: Path) -> Iterator[tuple[str, str]]:
    for label, link in (("stands in", "cwd"), ("has as root", "root"), ("runs", "exe")):
        if (path := _link(process / link)) is not None:
            yield label, path
    for descriptor in _names(process / "fd"):
        if (path := _link(process / "fd" / descriptor)) is not None:
            yield "has open", path
    for path in _mapped(process / "maps"):
        yield "has mapped", path


def _link(path: Path) -> str | None:
    try:
        target = os.readlink(path)
    except OSError:
        return None
    return target.removesuffix(_DELETED)


def _names(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _mapped(path: Path) -> list[str]:
    r"""Paths of the mappings: the sixth field, in which a newline is ``\012``."""
    try:
        text = os.fsdecode(path.read_bytes())
    except OSError:
        return []
    named = re.findall(r"^(?:\S+ +){5}(/.*)$", text, re.MULTILINE)
    return [one.removesuffix(_DELETED).replace("\\012", "\n") for one in dict.fromkeys(named)]


def _program(process: Path) -> str:
    try:
        return (process / "comm").read_text(errors="replace").strip()
    except OSError:
        return "?"
