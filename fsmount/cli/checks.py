"""What must be true before a mount is tried: this machine, and the mount point.

Invariant: a mount point that may be dead or wedged is looked at in a child only.
"""

from __future__ import annotations

import errno
import os
import re
import shlex
import shutil
import stat
import subprocess
import time
from pathlib import Path

from fsmount import registry
from fsmount.cli.child import in_child
from fsmount.cli.target import Target, resolve
from fsmount.errors import MachineLacks, StateError, TimedOut, UsageError
from fsmount.mounttable import MountLine, is_within, mounted_at

DEVICE = Path("/dev/fuse")
FUSE_CONF = Path("/etc/fuse.conf")
CONNECTIONS = Path("/sys/fs/fuse/connections")
"""https://docs.kernel.org/filesystems/fuse.html#control-filesystem"""
_FREED = 3.0
"""Seconds that a daemon may take to end once nothing holds it up."""
_CHOOSE = "give the path of an existing empty directory"


def check_machine(*, allow_other: bool, device: Path = DEVICE, conf: Path = FUSE_CONF) -> None:
    """Raises MachineLacks, with what mends it, where FUSE cannot be used."""
    if not device.exists():
        raise MachineLacks(
            f"{device} is missing",
            hint="load the kernel module (modprobe fuse), or give the container --device /dev/fuse",
        )
    if not os.access(device, os.R_OK | os.W_OK):
        raise MachineLacks(f"{device} cannot be opened by you", hint=f"as root: chmod 0666 {device}")
    if shutil.which("fusermount3") is None:
        raise MachineLacks("fusermount3 is not installed", hint="apt install fuse3")
    if allow_other and os.getuid() != 0 and not others_allowed(conf):
        raise MachineLacks(
            f"--allow-other is not permitted by {conf}", hint=f"as root, put a line user_allow_other into {conf}"
        )


def others_allowed(conf: Path) -> bool:
    """Whether users who are not root may let others in."""
    try:
        return re.search(r"^\s*user_allow_other\b", conf.read_text(), re.MULTILINE) is not None
    except OSError:
        return False


def check_mountpoint(text: str, *, nonempty: bool) -> Path:
    """The mount point without links, fit to be mounted on; a dead mount of ours is.

    Raises UsageError (missing, no directory, not empty, another program's dead mount), StateError (a mount already),
    TimedOut (what is mounted there hangs).
    """
    if not text:
        raise UsageError("the mount point is empty", hint=_CHOOSE)
    try:
        path = _resolved(os.path.abspath(text))
    except OSError as error:
        raise UsageError(f"the mount point {text} cannot be used: {error.strerror}", hint=_CHOOSE) from error
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"the mount point {os.fsencode(path)!r} is not UTF-8", hint="choose another name") from error
    line = mounted_at(path)
    if line is not None and line.ours:
        _check_dead(path, line)
        return Path(path)
    _check_directory(path, nonempty=nonempty)
    if line is not None and not nonempty:
        raise StateError(
            f"{path} is a mount already, of {line.source} ({line.fstype})",
            hint="unmount that first, choose another directory, or cover it with --nonempty",
        )
    return Path(path)


def _resolved(path: str) -> str:
    """The path without links; a mount that is right there, and may hang, is not asked."""
    above, name = os.path.split(path)
    here = os.path.join(resolve(above), name)
    return here if mounted_at(here) is not None else resolve(path)


def _check_dead(path: str, line: MountLine) -> None:
    """Returns if the mount of ours at ``path`` has lost its daemon."""
    known = registry.at(path)
    target = Target(mountpoint=path, name=line.source, state_dir=Path(known.state_dir) if known else None)
    try:
        # stat may be answered from the kernel's own cache for seconds after the daemon died; statfs always asks it
        in_child(
            lambda: str(os.statvfs(path).f_bsize).encode(), what=f"the mount at {path}", hint=target.whom_to_look_at()
        )
    except TimedOut:
        if _freed(target, line):
            return
        raise
    except OSError as error:
        if error.errno in (errno.ENOTCONN, errno.ECONNABORTED):
            return
        raise StateError(
            f"{path} is mounted already and answers: {error.strerror}", hint=target.whom_to_look_at()
        ) from error
    holder = target.holder()
    by = f" by {holder}" if holder else ""
    raise StateError(f"{line.source} is mounted at {path} already{by}", hint=f"fsmount umount {shlex.quote(path)}")


def _freed(target: Target, line: MountLine) -> bool:
    """Ends what a daemon left that was killed while the kernel held one of its threads up; whether that freed all.

    Such a thread waits for the lock of a directory, whose holder waits for the daemon: neither ever ends by itself.
    """
    holder = target.holder()
    if holder is None or not holder.ended:
        return False
    _abort(line)
    deadline = time.monotonic() + _FREED
    while target.holder() is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    return target.holder() is None


def _abort(line: MountLine) -> None:
    """Ends a connection with all that waits on it: by the control filesystem, else, where nobody mounted that, by force
    (umount2(2): MNT_FORCE), which takes root.
    """
    try:
        (CONNECTIONS / str(line.minor) / "abort").write_text("1")
    except OSError:
        subprocess.run(["umount", "-f", line.mountpoint], capture_output=True, check=False)


def _check_directory(path: str, *, nonempty: bool) -> None:
    try:
        answer = in_child(lambda: _look(path), what=path, hint="what is mounted there hangs; unmount it first")
    except FileNotFoundError as error:
        raise UsageError(f"the mount point {path} does not exist", hint=f"mkdir -p {shlex.quote(path)}") from error
    except OSError as error:
        if error.errno == errno.ENOTCONN:
            raise UsageError(
                f"{path} is a dead mount of another program", hint=f"fusermount3 -uz {shlex.quote(path)}"
            ) from error
        raise UsageError(f"the mount point {path} cannot be used: {error.strerror}", hint=_CHOOSE) from error
    if answer == b"file":
        raise UsageError(f"the mount point {path} is not a directory", hint=_CHOOSE)
    if answer and not nonempty:
        first = answer[1:].decode(errors="replace")
        raise UsageError(
            f"the mount point {path} is not empty: it holds {first!r}", hint="--nonempty mounts over it and hides that"
        )


def _look(path: str) -> bytes:
    """``file`` for what is no directory, else one name in it, empty if there is none."""
    if not stat.S_ISDIR(os.stat(path).st_mode):
        return b"file"
    with os.scandir(path) as names:
        found = next(names, None)
    return b"" if found is None else b"/" + os.fsencode(found.name)


def check_apart(mountpoint: Path, places: dict[str, Path]) -> None:
    """Raises UsageError where a place that the daemon itself uses lies in its own mount: it would wait for itself."""
    for option, place in places.items():
        if is_within(os.path.abspath(place), str(mountpoint)):
            raise UsageError(
                f"{option} {place} lies in the mount point {mountpoint}", hint="choose a place outside the mount"
            )
