"""The state directory of one mount: who uses it, and which remote it belongs to.

Invariant: at most one process at a time holds ``lock``, a kernel lock (flock(2)) that no crash leaves behind. What is
written in that file only tells people who the holder is.

    STATE/  journal.db  spool/  log  events  lock  remote.json  drain
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

import msgspec
from msgspec import Struct

from fsmount.errors import MachineLacks, StateError
from fsmount.mounttable import is_within, mounts

SCHEMA = 1
"""Grows when a directory written by this version can no longer be read by an older one."""
_REMOTE = ("nfs", "nfs4", "cifs", "smb3", "9p", "afs", "ceph", "fuse.ceph", "fuse.glusterfs", "lustre", "fuse.sshfs")
_POLL = 0.02
_CLOCK_SLACK = 2.0
"""Seconds that the start of a program, counted from the boot, may seem to come after what it did then."""


class Holder(Struct, frozen=True, kw_only=True, rename="camel"):
    """Who holds the lock. ``pid`` means something only on the same host and in the same pid namespace."""

    pid: int
    host: str
    pid_namespace: str
    started_at: float
    serving: bool = False
    """Whether it is a mount's daemon rather than a short command."""
    drain: float = 0.0
    """How many seconds that daemon goes on delivering when it is told to end."""
    boot: str = ""
    """Which boot of the machine it runs in, and when in that boot it began, in clock ticks: no wall clock, which may
    jump, has a say in whether it lives. Empty where an older version wrote this."""
    began: int = 0

    @property
    def here(self) -> bool:
        """Whether ``pid`` can be looked at and signalled from this process."""
        return (self.host, self.pid_namespace) == (os.uname().nodename, _pid_namespace())

    @property
    def lives(self) -> bool:
        """Whether it is a program that runs here now, and not another one that has its pid by now."""
        began = _began(self.pid) if self.here else None
        if began is None or (self.boot and self.boot != _boot()):
            return False
        return began == self.began if self.boot else _at(began) <= self.started_at + _CLOCK_SLACK

    @property
    def ended(self) -> bool:
        """Whether it has ended but for a thread that the kernel holds up: proc_pid_stat(5) calls it a zombie."""
        stat = _stat(self.pid) if self.here else None
        return stat is not None and stat[0] == "Z" and self.boot == _boot() and int(stat[19]) == self.began

    @property
    def advice(self) -> str:
        """What to do about a lock that another host, another container or nobody knows who holds."""
        break_it = "if that one is gone for good, fsmount mount --break-lock takes its lock"
        return f"pid {self.pid} is another program by now; {break_it}" if self.here else f"unmount it there; {break_it}"

    def __str__(self) -> str:
        return f"pid {self.pid}" if self.here else f"pid {self.pid} on {self.host} (another host or container)"


class Identity(Struct, frozen=True, kw_only=True):
    """Whose files the journal is about. ``remote`` holds no credential."""

    remote: str
    schema: int = SCHEMA
    version: str = ""


class Footprint:
    """What a directory and those above it held before anything was made there."""

    def __init__(self, directory: Path) -> None:
        self._missing = [one for one in (directory, *directory.parents) if not os.path.lexists(one)]
        self._directory = directory
        self._names = frozenset() if self._missing else _names_in(directory)

    def undo(self, *, shared: bool = False) -> None:
        """Removes what has been made since; what cannot be removed stays, and in a shared directory all files."""
        for name in frozenset() if shared else _names_in(self._directory) - self._names:
            path = self._directory / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with suppress(OSError):
                    path.unlink()
        for directory in self._missing:
            with suppress(OSError):
                directory.rmdir()


class StateDirectory:
    """The paths in one state directory, its lock and its identity. Every method is plain blocking file access."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.journal = path / "journal.db"
        self.spool = path / "spool"
        self.log = path / "log"
        self.events = path / "events"
        self._lock_file = path / "lock"
        self._identity_file = path / "remote.json"
        self._drain_file = path / "drain"
        self._before = Footprint(path)
        self._descriptor: int | None = None
        self._set_aside = path / "lock.old"
        self._reserve = path / "journal.db-reserve"
        self._broke = False

    def create(self) -> Self:
        """Makes the directory (0700) where it is missing, durably: what will be fsynced in it is found again.

        Raises MachineLacks where it cannot be made or written.
        """
        missing = [one for one in (self.path, *self.path.parents) if not os.path.lexists(one)]
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            for made in missing:
                _sync_names(made.parent)
        except OSError as error:
            raise self._unwritable(error) from error
        if not os.access(self.path, os.R_OK | os.W_OK | os.X_OK):
            raise self._unwritable(OSError(errno.EACCES, os.strerror(errno.EACCES)))
        return self

    def abandon(self) -> None:
        """Removes what was made since this object was: a first mount that failed leaves nothing behind."""
        self._before.undo()
        self.unlock()

    # who uses it

    def lock(
        self, *, serving: bool = False, drain: float = 0.0, patience: float = 0.5, break_lock: bool = False
    ) -> None:
        """Takes the lock for this process, trying for ``patience`` seconds; raises StateError naming the holder.

        ``serving`` says that it is a mount's daemon, and ``drain`` how many seconds it takes its leave; a drain that an
        earlier one was asked for is forgotten then. ``break_lock`` takes it from whoever is no program that runs here.
        """
        deadline = time.monotonic() + patience
        while (descriptor := self._taken()) is None:
            if time.monotonic() >= deadline:
                if not break_lock:
                    raise self._held()
                descriptor = self._broken()
                break
            time.sleep(_POLL)
        self._descriptor = descriptor
        if not break_lock:
            self._check_unseen(descriptor)
        self._tell_who(descriptor, serving=serving, drain=drain)
        if serving:
            self._drain_file.unlink(missing_ok=True)

    def _check_unseen(self, descriptor: int) -> None:
        """Raises StateError where another host wrote its name and its lock might be one that this host is not shown."""
        left = os.pread(descriptor, 4096, 0)
        if left and (holder := _named_in(left)).host != os.uname().nodename and _is_remote(self.path):
            self._descriptor = None
            os.close(descriptor)
            raise self._elsewhere(holder)

    def _taken(self) -> int | None:
        """The lock's descriptor; None while another has it, or has just put a new file in its place."""
        descriptor = self._open_lock()
        if _try_lock(descriptor, fcntl.LOCK_EX) and self._is_current(descriptor):
            return descriptor
        os.close(descriptor)
        return None

    def _is_current(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(self._lock_file))
        except FileNotFoundError:
            return False

    def _broken(self) -> int:
        """A lock on a new file under the old name: whoever held the old one holds what nobody looks at any more.

        Until ``settle`` the old file is set aside, and ``unlock`` puts it back: a start that fails breaks nothing.
        One at a time does this, so that nobody breaks the lock of the one who has just broken it.
        """
        directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            holder = self.holder()
            if holder is not None and (holder.lives or not holder.pid):
                raise self._held()
            scratch = self._lock_file.with_name(f".lock.{os.getpid()}")
            descriptor = os.open(scratch, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            self._set_aside.unlink(missing_ok=True)
            os.link(self._lock_file, self._set_aside)
            scratch.replace(self._lock_file)
            self._broke = True
        except OSError as error:
            raise self._unwritable(error) from error
        finally:
            os.close(directory)
        return descriptor

    @property
    def locked(self) -> bool:
        """Whether this object holds the lock."""
        return self._descriptor is not None

    def settle(self) -> None:
        """The start succeeded: a lock that was broken stays so."""
        if self._broke:
            self._broke = False
            with suppress(OSError):
                self._set_aside.unlink()

    def unlock(self) -> None:
        """Gives the lock back; nothing happens where it is not held."""
        if self._descriptor is not None:
            if self._broke:
                with suppress(OSError):
                    self._set_aside.replace(self._lock_file)
                self._broke = False
            with suppress(OSError):  # on some disks even that takes room
                os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None

    def holder(self) -> Holder | None:
        """Who holds the lock now, None if nobody. A holder that has not written its name yet has pid 0."""
        try:
            descriptor = os.open(self._lock_file, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            if _try_lock(descriptor, fcntl.LOCK_SH):
                return None
            return _named_in(os.pread(descriptor, 4096, 0))
        finally:
            os.close(descriptor)

    def _open_lock(self) -> int:
        try:
            return os.open(self._lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._unwritable(error) from error

    def _tell_who(self, descriptor: int, *, serving: bool, drain: float) -> None:
        holder = Holder(
            pid=os.getpid(),
            host=os.uname().nodename,
            pid_namespace=_pid_namespace(),
            started_at=time.time(),
            serving=serving,
            drain=drain,
            boot=_boot(),
            began=_began(os.getpid()) or 0,
        )
        told = msgspec.json.encode(holder) + b"\n"
        try:
            _write_whole(descriptor, told)
        except OSError:
            # What the daemon before kept for the journal is for a start on a full disk too.
            self._reserve.unlink(missing_ok=True)
            try:
                _write_whole(descriptor, told)
            except OSError as error:
                raise self._unwritable(error) from error

    def _held(self) -> StateError:
        holder = self.holder()
        if holder is not None and holder.pid and not holder.lives:
            return self._elsewhere(holder)
        what = "serves a mount from" if holder is not None and holder.serving else "is using"
        return StateError(
            f"{holder or 'another program'} {what} the state directory {self.path}",
            hint="unmount that one first (fsmount umount), or choose another --name or --state-dir",
        )

    def _elsewhere(self, holder: Holder) -> StateError:
        return StateError(f"{holder} holds the state directory {self.path}", hint=holder.advice)

    # which remote it belongs to

    def identity(self) -> Identity | None:
        """What ``claim_for`` wrote, None before that; raises StateError if it is damaged or of a newer version."""
        try:
            text = self._identity_file.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            found = msgspec.json.decode(text, type=Identity)
        except msgspec.DecodeError as error:
            raise StateError(
                f"{self._identity_file} is damaged: {error}",
                hint="nothing was changed; move the directory away to start afresh",
            ) from error
        if found.schema > SCHEMA:
            raise StateError(
                f"{self.path} was written by a newer fsmount ({found.version or 'unknown version'})",
                hint="nothing was changed; use that version, or another --state-dir",
            )
        return found

    def check_remote(self, remote: str, *, held: int) -> bool:
        """Whether the directory knows ``remote`` already; raises StateError where it holds anything of another one."""
        found = self.identity()
        if found is None:
            return False
        if found.remote != remote and held:
            raise StateError(
                f"{self.path} belongs to {found.remote}: it holds {held} of its ops and local attributes",
                hint=f"use another --name or --state-dir for {remote}",
            )
        return found.remote == remote

    def claim_for(self, remote: str, version: str) -> None:
        """Records that the directory belongs to ``remote`` from now on; replaced atomically and durable on return."""
        self._replace(self._identity_file, msgspec.json.encode(Identity(remote=remote, version=version)) + b"\n")

    # how to end

    def ask_drain(self, seconds: float) -> None:
        """Leaves word for the daemon, to be read when it is told to end: deliver for at most ``seconds``."""
        self._replace(self._drain_file, f"{seconds}\n".encode())

    def asked_drain(self) -> float | None:
        """The seconds that ``ask_drain`` left, once; None where nothing valid was left. Never raises."""
        try:
            seconds = float(self._drain_file.read_text())
            self._drain_file.unlink()
        except (OSError, ValueError):
            return None
        return seconds if 0 <= seconds < float("inf") else None

    def _replace(self, path: Path, content: bytes) -> None:
        scratch = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with scratch.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            scratch.replace(path)
            _sync_names(self.path)
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> MachineLacks:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return MachineLacks(
            f"the state directory {self.path} cannot be used: {error.strerror or error}",
            hint="make room on its disk"
            if full
            else "make it readable and writable for you, or choose another with --state-dir or XDG_STATE_HOME",
        )


def _write_whole(descriptor: int, content: bytes) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, content, 0)


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sync_names(directory: Path) -> None:
    """Makes the names in a directory survive power loss; raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _names_in(directory: Path) -> frozenset[str]:
    try:
        return frozenset(os.listdir(directory))
    except OSError:
        return frozenset()


def _named_in(text: bytes) -> Holder:
    try:
        return msgspec.json.decode(text, type=Holder)
    except msgspec.DecodeError:
        return Holder(pid=0, host=os.uname().nodename, pid_namespace=_pid_namespace(), started_at=0.0)


def _is_remote(path: Path) -> bool:
    """Whether the directory lies on a filesystem of another host, whose locks need not reach this one."""
    holding = [line for line in mounts() if is_within(os.path.realpath(path), line.mountpoint)]
    return bool(holding) and max(holding, key=lambda line: len(line.mountpoint)).fstype in _REMOTE


def _began(pid: int) -> int | None:
    """When a program here began, in clock ticks since the boot; None if there is none. See proc_pid_stat(5)."""
    stat = _stat(pid)
    return None if stat is None or stat[0] == "Z" else int(stat[19])


def _stat(pid: int) -> list[str] | None:
    """The words of its /proc/PID/stat from the state on; None where there is no such program."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None


def _at(began: int) -> float:
    """The same as UTC epoch seconds, by the clock as it is now."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + began / os.sysconf("SC_CLK_TCK")


def _boot() -> str:
    """The kernel's name of this boot (random(4)); empty where it tells none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _pid_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
