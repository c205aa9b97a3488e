"""Which mounts this user has, or had with something unresolved: one small file each.

Invariant: nothing here touches a mount point. Paths are compared as text, live mounts come from the mount table, so
that every command finds its mount even where it is dead or wedged.

    $XDG_STATE_HOME/fsmount/mounts/HASH.json   {mountpoint, name, remote, stateDir, pid, startedAt}
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import msgspec
from msgspec import Struct

from fsmount.config import state_home
from fsmount.errors import MachineLacks
from fsmount.mounttable import is_within


class Registration(Struct, frozen=True, kw_only=True, rename="camel"):
    """One mount. ``mountpoint`` is absolute, without links; ``remote`` without credentials; ``pid`` its last daemon."""

    mountpoint: str
    name: str
    remote: str
    state_dir: str
    pid: int
    started_at: float


def directory() -> Path:
    """Where the registrations are."""
    return state_home() / "mounts"


def write(registration: Registration) -> None:
    """Records the mount, replacing what was known of the same mount point; raises MachineLacks where that cannot be."""
    path = _file_of(registration.mountpoint)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        scratch.write_bytes(msgspec.json.format(msgspec.json.encode(registration)) + b"\n")
        scratch.replace(path)
    except OSError as error:
        raise MachineLacks(
            f"{path.parent} cannot be written: {error.strerror}", hint="make it writable for you, or set XDG_STATE_HOME"
        ) from error


def remove(mountpoint: str) -> None:
    """Forgets the mount; nothing happens where it is not known."""
    try:
        _file_of(mountpoint).unlink(missing_ok=True)
    except OSError:
        return


def registrations() -> list[Registration]:
    """Every known mount, oldest first; a file that cannot be read is passed over."""
    found = [one for path in directory().glob("*.json") if (one := _read(path)) is not None]
    return sorted(found, key=lambda one: (one.started_at, one.mountpoint))


def at(mountpoint: str) -> Registration | None:
    """The mount at exactly this absolute path."""
    return _read(_file_of(mountpoint))


def around(path: str) -> Registration | None:
    """The innermost known mount that ``path`` (absolute) is the mount point of, or lies in."""
    holding = [one for one in registrations() if is_within(path, one.mountpoint)]
    return max(holding, key=lambda one: len(one.mountpoint), default=None)


def named(name: str) -> list[Registration]:
    """The mounts of that name; several where one remote was mounted at several places."""
    return [one for one in registrations() if one.name == name]


def using(state_dir: Path) -> Registration | None:
    """The mount that was last made with this state directory."""
    wanted = str(state_dir)
    return max(
        (one for one in registrations() if one.state_dir == wanted), key=lambda one: one.started_at, default=None
    )


def _file_of(mountpoint: str) -> Path:
    return directory() / f"{hashlib.sha256(os.fsencode(mountpoint)).hexdigest()[:16]}.json"


def _read(path: Path) -> Registration | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Registration)
    except (OSError, msgspec.DecodeError):
        return None
