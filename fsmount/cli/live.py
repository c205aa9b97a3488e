"""The queue of a mount whose daemon runs: its ``.relay``, touched by children only.

Invariant: a person's gesture is the same rename(2) that ``mv`` would make, so there is one way to steer and not two.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from fsmount.cli.child import Child, in_child, pieces
from fsmount.cli.queue import (
    DEAD,
    DISCARDED,
    FORCE,
    HELD,
    PENDING,
    RETRY,
    Glance,
    Move,
    Status,
    Version,
    read_status,
    unknown,
)
from fsmount.cli.target import Target
from fsmount.errors import FsmountError, JournalDamaged, VerbRefused

_TAIL = 16 * 1024
_SUFFIX = ".json"
_PIECE = 256 * 1024
_PLACES = (PENDING, HELD, DEAD, DISCARDED)
_GONE = (errno.ENOTCONN, errno.ENOENT, errno.ECONNABORTED, errno.ENOTDIR, errno.ENODEV)
_DONE = {RETRY: "retried", FORCE: "forced", DISCARDED: "discarded"}


class LiveQueue:
    """See ``Queue``. Holds no descriptor: each question is a child of its own."""

    served = True

    def __init__(self, target: Target) -> None:
        self._target = target
        self._relay = f"{target.mountpoint}/.relay"
        self._first = Status()

    @classmethod
    def of(cls, target: Target) -> LiveQueue | None:
        """The queue if the mount answers, None where no daemon serves it; raises TimedOut where one is silent."""
        if target.mounted() is None:
            return None
        queue = cls(target)
        try:
            found = in_child(lambda: _all_of(f"{queue._relay}/status.json"), what=queue._what, hint=queue._hint)
            queue._first = read_status(found)
        except OSError as error:
            if error.errno in _GONE:
                return None
            raise queue._failed(error) from error
        return queue

    def check_journal(self) -> None:
        """Raises JournalDamaged where the first look told so: of such a mount no op is known, which is not none."""
        if self._first.damage:
            raise JournalDamaged(self._first.damage)

    def ask(self) -> Child:
        """A child that yields ``status.json``'s ``Status``, not waited for."""
        return Child(
            lambda: [msgspec.json.encode(read_status(_all_of(f"{self._relay}/status.json")))],
            what=self._what,
            hint=self._hint,
        )

    def status_json(self) -> bytes:
        """``.relay/status.json``."""
        return self._touch(lambda: _all_of(f"{self._relay}/status.json"))

    def status_text(self) -> str:
        """``.relay/status``."""
        return self._touch(lambda: _all_of(f"{self._relay}/status")).decode(errors="replace")

    def glance(self) -> Glance:
        """Pending first: what dies or is held while this looks is still seen."""
        return msgspec.json.decode(self._touch(self._glance), type=Glance)

    def ops(self, directories: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """One child reads them all; the first directory twice, for what came there from another meanwhile."""
        for piece in self._stream(lambda: self._read_ops(directories)):
            directory, _, text = piece.partition(b"\n")
            yield directory.decode(), text

    def show(self, op_id: str) -> tuple[str, bytes] | None:
        """The op's file, from whichever directory it is in."""
        return next(self.show_each([op_id]))

    def show_each(self, op_ids: Sequence[str]) -> Iterator[tuple[str, bytes] | None]:
        """The same of several, all in one child."""
        for reply in self._stream(lambda: self._find_each(op_ids)):
            directory, _, text = reply.partition(b"\n")
            yield (directory.decode(), text) if directory else None

    def move(self, moves: Sequence[Move]) -> Iterator[FsmountError | None]:
        """``mv .relay/SOURCE/OP.json .relay/VERB/`` of each, all in one child."""
        replies = self._stream(lambda: (self._rename(move) for move in moves))
        for move, reply in zip(moves, replies, strict=True):
            yield self._refusal(move, reply) if reply else None

    def version(self, op_id: str, side: str) -> Version | None:
        """``.relay/conflict/OP/SIDE``; one's own bytes are in ``.relay/content/OP`` whatever became of the op."""
        places = [f"{self._relay}/conflict/{op_id}/{side}"]
        places += [f"{self._relay}/content/{op_id}"] if side == "mine" else []
        found = self._stream(lambda: _first_of(places))
        return Version.of(found) if next(found) else None

    # in the child

    def _glance(self) -> bytes:
        pending, held, dead = (_ids(f"{self._relay}/{directory}") for directory in (PENDING, HELD, DEAD))
        status = read_status(_all_of(f"{self._relay}/status.json"))
        return msgspec.json.encode(Glance(pending=pending, held=held, dead=dead, status=status))

    def _read_ops(self, directories: Sequence[str]) -> Iterator[bytes]:
        seen: set[str] = set()
        for directory in [*directories, directories[0]]:
            opened = os.open(f"{self._relay}/{directory}", os.O_RDONLY | os.O_DIRECTORY)
            for op_id in _ids(opened):
                try:
                    text = _all_of(f"{op_id}{_SUFFIX}", opened) if op_id not in seen else b""
                except FileNotFoundError:
                    continue
                if text:
                    seen.add(op_id)
                    yield directory.encode() + b"\n" + text
            os.close(opened)

    def _find_each(self, op_ids: Sequence[str]) -> Iterator[bytes]:
        """Where each stands now. What a listing showed stays readable there for a moment, but is not listed again."""
        listed = self._listed()
        for op_id in op_ids:
            found = self._find(op_id, listed)
            if not found:  # an op may move on while it is looked for
                listed = self._listed()
                found = self._find(op_id, listed)
            yield found
        _all_of(f"{self._relay}/status.json")

    def _listed(self) -> dict[str, set[str]]:
        return {directory: set(_ids(f"{self._relay}/{directory}")) for directory in _PLACES}

    def _find(self, op_id: str, listed: dict[str, set[str]]) -> bytes:
        places = (directory for directory in _PLACES if op_id in listed[directory])
        return next((place.encode() + b"\n" + text for place in places if (text := self._text(place, op_id))), b"")

    def _text(self, directory: str, op_id: str) -> bytes:
        try:
            return _all_of(f"{self._relay}/{directory}/{op_id}{_SUFFIX}")
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENAMETOOLONG):
                return b""
            raise

    def _rename(self, move: Move) -> bytes:
        """Nothing when it was done, else errno and what the log says."""
        name = f"{move.op_id}{_SUFFIX}"
        try:
            os.rename(f"{self._relay}/{move.source}/{name}", f"{self._relay}/{move.verb}/{name}")
        except OSError as error:
            return msgspec.json.encode((error.errno or 0, self._last_word(move.op_id)))
        return b""

    def _last_word(self, op_id: str) -> str:
        """The message of the log's last line about the op: ``AT LEVEL EVENT OP PATH message``."""
        with open(f"{self._relay}/log", "rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - _TAIL))
            lines = [line for line in log.read().decode(errors="replace").splitlines() if f" {op_id} " in line]
        fields = lines[-1].split(" ", 5) if lines else []
        return fields[5] if len(fields) == 6 else ""

    # asking it

    @property
    def _what(self) -> str:
        return f"the mount at {self._target}"

    @property
    def _hint(self) -> str:
        return self._target.whom_to_look_at()

    def _touch(self, action: Callable[[], bytes]) -> bytes:
        return b"".join(self._stream(lambda: [action()]))

    def _stream(self, action: Callable[[], Iterable[bytes]]) -> Iterator[bytes]:
        try:
            yield from pieces(action, what=self._what, hint=self._hint)
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> FsmountError:
        if error.errno in _GONE:
            return FsmountError(
                f"the mount at {self._target} ended meanwhile",
                hint=f"fsmount writeback status{self._target.argument} says what remains",
            )
        if error.errno in (errno.EACCES, errno.EPERM):
            return FsmountError(
                f"the mount at {self._target} is not yours to look into: {error.strerror}",
                hint="use the account that mounted it",
            )
        return FsmountError(
            f"the mount at {self._target} failed: {error.strerror}", hint=self._target.whom_to_look_at()
        )

    def _refusal(self, move: Move, reply: bytes) -> FsmountError:
        code, reason = msgspec.json.decode(reply, type=tuple[int, str])
        if code == errno.ENOENT:
            return unknown(move.op_id)
        if code in _GONE:
            return self._failed(OSError(code, os.strerror(code)))
        return VerbRefused(code, f"{move.op_id} cannot be {_DONE[move.verb]}: {reason or _default_reason(code)}")


def _ids(directory: str | int) -> list[str]:
    """Oldest first."""
    return sorted(name.removesuffix(_SUFFIX) for name in os.listdir(directory) if name.endswith(_SUFFIX))


def _all_of(path: str, directory: int | None = None) -> bytes:
    """The whole file. A read that comes short is its end: so it is for what FUSE serves with direct_io."""
    descriptor = os.open(path, os.O_RDONLY, dir_fd=directory)
    try:
        found = piece = os.read(descriptor, _PIECE)
        while len(piece) == _PIECE:
            piece = os.read(descriptor, _PIECE)
            found += piece
        return found
    finally:
        os.close(descriptor)


def _first_of(paths: Sequence[str]) -> Iterator[bytes]:
    """Whether there is one (a byte, or nothing), then the bytes of the first that is there."""
    for path in paths:
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            continue
        yield b"1"
        while piece := os.read(descriptor, _PIECE):
            yield piece
        return
    yield b""


def _default_reason(code: int) -> str:
    reasons = {
        errno.EBUSY: "it is being sent, has a newer change on its path, or its record is damaged",
        errno.EPERM: "not in the state that it is in",
        errno.EROFS: "the mount is read-only",
    }
    return reasons.get(code, os.strerror(code))
