"""What ``fsmount doctor`` finds on this machine: programs, the device, directories, known mounts.

Invariant: nothing here changes anything, and whatever might hang is looked at in a child.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from msgspec import Struct

from fsmount import __version__, registry
from fsmount.cli.checks import DEVICE, FUSE_CONF, others_allowed
from fsmount.cli.child import ChildFailed, in_child
from fsmount.cli.live import LiveQueue
from fsmount.cli.target import Target
from fsmount.config import cache_home, config_home, state_home
from fsmount.errors import FsmountError, MachineLacks, StateError
from fsmount.mounttable import mounted_at, mounts
from fsmount.render.advice import apart
from fsmount.render.escape import escape, size
from fsmount.spool import found_apart
from fsmount.statedir import StateDirectory

ROOM = 256 * 1024**2
"""Free bytes of a disk below which a person is told."""
OLDEST = (3, 11)
_FUSE = os.makedev(10, 229)


class Finding(Struct, frozen=True, kw_only=True):
    """One line. ``level`` is ``ok``, ``warn`` or ``FAIL``; ``code`` the exit code that a failure asks for."""

    level: str
    said: str
    hint: str = ""
    code: int = 0

    def __str__(self) -> str:
        return escape(f"{self.level:<5} {self.said}" + (f": {self.hint}" if self.hint else ""))


def ok(said: str) -> Finding:
    """Nothing to do."""
    return Finding(level="ok", said=said)


def warn(said: str, hint: str = "") -> Finding:
    """It works, but."""
    return Finding(level="warn", said=said, hint=hint)


def fail(said: str, hint: str, code: int = MachineLacks.exit_code) -> Finding:
    """It does not work."""
    return Finding(level="FAIL", said=said, hint=hint, code=code)


def failed(error: FsmountError) -> Finding:
    """An error that a command would have ended with."""
    return fail(error.message, error.hint or "", error.exit_code)


def programs() -> Iterator[Finding]:
    """Versions of what it stands on."""
    kernel = f"Linux {platform.release()}"
    python = platform.python_version()
    if sys.version_info[:2] < OLDEST:
        yield fail(f"Python {python} is too old", f"use {'.'.join(map(str, OLDEST))} or newer")
    else:
        yield ok(f"fsmount {__version__}, Python {python}, {kernel}")
    try:
        yield ok(f"pyfuse3 {importlib.metadata.version('pyfuse3')}, libfuse {_libfuse()}")
    except importlib.metadata.PackageNotFoundError:
        yield fail("pyfuse3 is not installed", "install fsmount again, with its dependencies")
    except OSError:
        yield fail("libfuse 3 is not installed", "apt install libfuse3-3")
    yield _fusermount()


def _libfuse() -> str:
    library = ctypes.CDLL("libfuse3.so.3")
    library.fuse_pkgversion.restype = ctypes.c_char_p
    version: bytes = library.fuse_pkgversion()
    return version.decode(errors="replace")


def _fusermount() -> Finding:
    path = shutil.which("fusermount3")
    if path is None:
        return fail("fusermount3 is not installed", "apt install fuse3")
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return fail(f"{path} cannot be run: {error}", "apt install --reinstall fuse3")
    if os.getuid() != 0 and not os.stat(path).st_mode & stat.S_ISUID:
        return fail(f"{path} is not set-uid root, so only root can mount", f"as root: chmod u+s {path}")
    return ok(f"{path}, {done.stdout.strip() or done.stderr.strip()}")


def device(path: Path = DEVICE, conf: Path = FUSE_CONF) -> Iterator[Finding]:
    """The way to the kernel, and whether others may be let in."""
    if not path.exists():
        yield fail(
            f"{path} is missing", "load the kernel module (modprobe fuse), or give the container --device /dev/fuse"
        )
    else:
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK))
            yield ok(f"{path} can be opened") if os.stat(path).st_rdev == _FUSE else _no_device(path)
        except OSError as error:
            yield fail(f"{path} cannot be opened by you: {error.strerror}", f"as root: chmod 0666 {path}")
    if os.getuid() == 0 or others_allowed(conf):
        yield ok("--allow-other is permitted")
    else:
        yield warn(f"--allow-other is not permitted by {conf}", "as root, add a line user_allow_other, if you need it")


def _no_device(path: Path) -> Finding:
    return fail(f"{path} is not the FUSE device", f"as root: rm {path} && mknod -m 0666 {path} c 10 229")


def directories() -> Iterator[Finding]:
    """Where state, cache and configuration lie."""
    for what, home in (("state", state_home), ("cache", cache_home), ("configuration", config_home)):
        try:
            path = home()
            what_hangs = f"the {what} directory {path}"
            answer = in_child(partial(_looked_at, path), what=what_hangs, hint="what is mounted there hangs")
        except (FsmountError, ChildFailed, OSError) as error:
            hint = getattr(error, "hint", None) or "make it readable for you"
            yield fail(f"the {what} directory cannot be looked at: {error}", hint)
            continue
        yield from _directory(what, path, answer.decode())


def _looked_at(path: Path) -> bytes:
    """In the child: what stands there, the mode, whether it can be written, the disk's free bytes."""
    there = path
    while not os.path.lexists(there):
        there = there.parent
    found = there.stat()
    disk = os.statvfs(there)
    kind = "missing" if there != path else "directory" if stat.S_ISDIR(found.st_mode) else "file"
    writable = os.access(there, os.W_OK | os.X_OK)
    return f"{kind} {stat.S_IMODE(found.st_mode):o} {writable:d} {disk.f_bavail * disk.f_frsize}".encode()


def _directory(what: str, path: Path, answer: str) -> Iterator[Finding]:
    kind, mode, writable, free = answer.split()
    quoted = shlex.quote(str(path))
    if kind == "file":
        yield fail(f"{path} is no directory", "move it away")
    elif writable == "0" and what != "configuration":
        variable = f"XDG_{what.upper()}_HOME"
        yield fail(f"the {what} directory {path} cannot be written", f"make it writable for you, or set {variable}")
    elif kind == "directory" and int(mode, 8) & 0o022:
        yield warn(f"others may write the {what} directory {path}", f"chmod go-w {quoted}")
    else:
        yield ok(f"the {what} directory {path} " + ("can be made" if kind == "missing" else "is as it should be"))
    if int(free) < ROOM and what != "configuration":
        yield warn(f"the disk of {path} has only {size(int(free))} left", "writes fail with ENOSPC when it is full")


def known_mounts() -> Iterator[Finding]:
    """Every mount in the registry, and what is wrong with those that only the mount table has."""
    known = registry.registrations()
    for one in known:
        target = Target(mountpoint=one.mountpoint, name=one.name, state_dir=Path(one.state_dir))
        yield from _mount(target)
    registered = {one.mountpoint for one in known}
    for line in mounts():
        if line.ours and line.mountpoint not in registered:
            yield from _unregistered(Target(mountpoint=line.mountpoint, name=line.source))
    if not known:
        yield ok("no mounts are known")


def _unregistered(target: Target) -> Iterator[Finding]:
    """Somebody else's, or made with another XDG_STATE_HOME: told only where something is wrong, and never a failure."""
    for finding in _mount(target):
        if finding.level != "ok":
            yield warn(finding.said, finding.hint)


def _mount(target: Target) -> Iterator[Finding]:
    assert target.mountpoint is not None  # noqa: S101 - both callers name one
    again = "fsmount mount … again takes it over, fsmount umount " + shlex.quote(target.mountpoint) + " clears it"
    try:
        yield _served(target, target.mountpoint, again)
        if target.state_dir is not None:
            yield from _state_of(target, target.state_dir)
    except FsmountError as error:
        yield failed(error)


def _served(target: Target, mountpoint: str, again: str) -> Finding:
    if mounted_at(mountpoint) is None:
        return warn(
            f"{mountpoint} is not mounted; its queue may hold something", f"fsmount writeback status {mountpoint}"
        )
    if target.mounted() is None:
        return warn(f"{mountpoint} has another filesystem mounted over it", f"umount {mountpoint}")
    try:
        in_child(
            lambda: str(os.statvfs(mountpoint).f_bsize).encode(),
            what=f"the mount at {mountpoint}",
            hint=target.whom_to_look_at(),
        )
    except OSError as error:
        return warn(f"the mount at {mountpoint} is dead: {error.strerror}", again)
    return ok(f"the mount at {mountpoint} answers")


def _state_of(target: Target, state_dir: Path) -> Iterator[Finding]:
    state = StateDirectory(state_dir)
    if not state_dir.is_dir():
        yield warn(f"the state directory {state_dir} of {target} is gone", f"fsmount umount {target} forgets the mount")
        return
    state.identity()
    if kept := apart(found_apart(state.spool)):
        said, _, do = kept.rpartition("; ")
        yield warn(said, do)
    holder = state.holder()
    if holder is None:
        yield ok(f"nobody holds {state_dir}")
        _check_journal(state)
    elif holder.pid and not holder.lives:
        yield warn(f"{holder} holds {state_dir}", holder.advice)
    else:
        yield ok(f"{holder} holds {state_dir}")
        if (live := LiveQueue.of(target)) is not None:
            live.check_journal()


def _check_journal(state: StateDirectory) -> None:
    """Raises StateError for a journal that is damaged, or of a newer version."""
    if not state.journal.exists():
        return
    from fsmount.journal import SCHEMA_VERSION
    from fsmount.journal.database import examined

    found, _ = examined(state.journal)
    if found > SCHEMA_VERSION:
        raise StateError(
            f"{state.journal} was written by a newer fsmount (schema {found}, this one knows {SCHEMA_VERSION})",
            hint="use that version",
        )
