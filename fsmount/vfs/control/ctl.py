"""``ctl``: commands written as lines.

Invariant: a write is carried out as a whole or not at all as far as its words go: every line that it completes makes
sense before the first of them is done. What was done, and why something was not, is in the log.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from fsmount.errors import FileError, VerbRefused
from fsmount.model import ROOT, Attr, OpId, RemotePath, is_below, join
from fsmount.ports import Commands, EventLog
from fsmount.render.escape import counted, escape

USAGE = b"""\
# Commands, one a line, carried out at the newline:  echo 'retry all' > .relay/ctl
# A bad one fails the write with EINVAL ("Invalid argument"); .relay/log says why.
retry all          try every dead letter again
retry PROVIDER     the dead letters below /PROVIDER
release held       let the held deletes go
discard held       bring back what they would delete
purge OP           forget a discarded op and its bytes now
refresh PATH       ask the remote again about PATH and all below it
pause              send nothing until: resume
resume             send again
flush              send now what still settles
"""
_LONGEST = 1 << 16
_Act = Callable[[], str]


class OpenCtl:
    """One handle: what is written to it is commands, what is read from it their usage."""

    def __init__(self, commands: CtlCommands, attr: Attr) -> None:
        self._commands = commands
        self.attr = attr
        self.begun = b""
        """A line whose end is still to come."""

    def read(self, offset: int, size: int) -> bytes:
        return USAGE[offset : offset + size]

    def write(self, written: bytes) -> int:
        """Carries out each line that is complete now; FileError EINVAL, or the disk's errno."""
        *lines, self.begun = (self.begun + written).split(b"\n")
        if len(self.begun) > _LONGEST:
            self.begun = b""
            raise FileError(errno.EINVAL, "ctl: a line without an end")
        try:
            self._commands.carry_out(lines)
        except FileError:
            self.begun = b""
            raise
        return len(written)

    def close(self) -> None:
        """Nobody has it open any more: a last line without its newline is carried out, or the log says why not.

        A flush would be too early: a shell's child that closes its copy of the descriptor makes one in mid-line.
        """
        begun, self.begun = self.begun, b""
        with suppress(FileError):
            self._commands.carry_out([begun])


class CtlCommands:
    """What the lines mean; ``root`` is what the mount shows of the remote."""

    def __init__(self, commands: Commands, log: EventLog, root: RemotePath) -> None:
        self._commands = commands
        self._log = log
        self._root = root

    def carry_out(self, lines: list[bytes]) -> None:
        """Does what the lines say, in their order; blank ones say nothing. Raises FileError."""
        asked = [line.decode("utf-8", "surrogateescape").strip() for line in lines]
        acts = [(line, self._understood(line)) for line in asked if line]
        for line, act in acts:
            try:
                done = act()
            except VerbRefused as error:
                raise self._bad(line, str(error)) from error
            self._log.note("ctl", f"{line}: {done}")

    def _understood(self, line: str) -> _Act:
        act = self._exact().get(" ".join(line.split()))
        if act is not None:
            return act
        word, _, argument = line.partition(" ")
        meaning = {"retry": self._retry, "purge": self._purge, "refresh": self._refresh}.get(word)
        if meaning is None or not argument.strip():
            raise self._bad(line, "no such command; cat .relay/ctl shows which there are")
        try:
            return meaning(argument.strip())
        except ValueError as error:
            raise self._bad(line, str(error)) from error

    def _exact(self) -> dict[str, _Act]:
        commands = self._commands
        return {
            "retry all": partial(self._retry_dead, None),
            "release held": lambda: f"{counted(commands.release_held(), 'op')} released",
            "discard held": lambda: f"{counted(commands.discard_held(), 'op')} given up",
            "pause": partial(_done, commands.pause, "nothing is sent until resume"),
            "resume": partial(_done, commands.resume, "sending goes on"),
            "flush": partial(_done, commands.flush, "what was settling is due"),
        }

    def _retry(self, provider: str) -> _Act:
        name = provider.strip("/")
        if not name or "/" in name:
            raise ValueError("a provider is the first name of a path on the remote")
        return partial(self._retry_dead, name)

    def _retry_dead(self, provider: str | None) -> str:
        return f"{counted(self._commands.retry_dead(provider), 'dead letter')} to be tried again"

    def _purge(self, op_id: str) -> _Act:
        name = OpId(op_id.rpartition("/")[2].removesuffix(".json"))
        return partial(_done, partial(self._commands.purge, name), "forgotten")

    def _refresh(self, path: str) -> _Act:
        return partial(_done, partial(self._commands.refresh, self._on_remote(path)), "asked again when next needed")

    def _on_remote(self, path: str) -> RemotePath:
        """``path`` as the remote names it: absolute there, or relative to the mount."""
        names = [name for name in path.split("/") if name not in ("", ".")]
        found = ROOT if path.startswith("/") else self._root
        for name in names:
            found = join(found, name)
        if ".." in names or not (found == self._root or is_below(found, self._root)):
            raise ValueError(f"not in this mount, which shows {self._root}")
        return found

    def _bad(self, line: str, why: str) -> FileError:
        self._log.note("ctl.refused", f"{line}: {why}", level="warning")
        return FileError(errno.EINVAL, f"ctl: {escape(line)}: {why}")


def _done(act: Callable[[], None], said: str) -> str:
    act()
    return said
