"""The state directory of one mount: who uses it, and which remote it belongs to.

Invariant: at most one process at a time holds ``lock``, a kernel lock (flock(2)) that no crash leaves behind. What is
written in that file only tells people who the holder is.

    STATE/  journal.db  spool/  log  lock  remote.json  drain
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import time
from pathlib import Path
from typing import Self

import msgspec
from msgspec import Struct

from fsmount.errors import MachineLacks, StateError

SCHEMA = 1
"""Grows when a directory written by this version can no longer be read by an older one."""
_POLL = 0.02


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

    @property
    def here(self) -> bool:
        """Whether ``pid`` can be looked at and signalled from this process."""
        return (self.host, self.pid_namespace) == (os.uname().nodename, _pid_namespace())

    def __str__(self) -> str:
        return f"pid {self.pid}" if self.here else f"pid {self.pid} on {self.host} (another host or container)"


class Identity(Struct, frozen=True, kw_only=True):
    """Whose files the journal is about. ``remote`` holds no credential."""

    remote: str
    schema: int = SCHEMA
    version: str = ""


class StateDirectory:
    """The paths in one state directory, its lock and its identity. Every method is plain blocking file access."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.journal = path / "journal.db"
        self.spool = path / "spool"
        self.log = path / "log"
        self._lock_file = path / "lock"
        self._identity_file = path / "remote.json"
        self._drain_file = path / "drain"
        self._created = False
        self._descriptor: int | None = None

    def create(self) -> Self:
        """Makes the directory (0700) where it is missing; raises MachineLacks where it cannot be made or written."""
        try:
            self._created = not self.path.exists()
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise self._unwritable(error) from error
        if not os.access(self.path, os.R_OK | os.W_OK | os.X_OK):
            raise self._unwritable(OSError(errno.EACCES, os.strerror(errno.EACCES)))
        return self

    def abandon(self) -> None:
        """Removes the directory if ``create`` made it: a first mount that failed leaves nothing behind."""
        self.unlock()
        if self._created:
            shutil.rmtree(self.path, ignore_errors=True)

    # who uses it

    def lock(self, *, serving: bool = False, drain: float = 0.0, patience: float = 0.5) -> None:
        """Takes the lock for this process, trying for ``patience`` seconds; raises StateError naming the holder.

        ``serving`` says that it is a mount's daemon, and ``drain`` how many seconds it takes its leave; a drain that an
        earlier one was asked for is forgotten then.
        """
        descriptor = self._open_lock()
        deadline = time.monotonic() + patience
        while not _try_lock(descriptor, fcntl.LOCK_EX):
            if time.monotonic() >= deadline:
                os.close(descriptor)
                raise self._held()
            time.sleep(_POLL)
        self._descriptor = descriptor
        self._tell_who(descriptor, serving=serving, drain=drain)
        if serving:
            self._drain_file.unlink(missing_ok=True)

    def unlock(self) -> None:
        """Gives the lock back; nothing happens where it is not held."""
        if self._descriptor is not None:
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
        )
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, msgspec.json.encode(holder) + b"\n", 0)

    def _held(self) -> StateError:
        holder = self.holder()
        what = "serves a mount from" if holder is not None and holder.serving else "is using"
        return StateError(
            f"{holder or 'another program'} {what} the state directory {self.path}",
            hint="unmount that one first (fsmount umount), or choose another --name or --state-dir",
        )

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
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> MachineLacks:
        return MachineLacks(
            f"the state directory {self.path} cannot be used: {error.strerror or error}",
            hint="make it readable and writable for you, or choose another with --state-dir or XDG_STATE_HOME",
        )


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _named_in(text: bytes) -> Holder:
    try:
        return msgspec.json.decode(text, type=Holder)
    except msgspec.DecodeError:
        return Holder(pid=0, host=os.uname().nodename, pid_namespace=_pid_namespace(), started_at=0.0)


def _pid_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
