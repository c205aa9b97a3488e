"""The queue of one mount as a command sees it, whether its daemon runs or not.

Invariant: both ways answer alike. With a daemon everything goes through ``.relay``, in a child; without one through the
state directory, under its lock.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, Self

import msgspec
from msgspec import Struct

from fsmount.errors import FsmountError, NotFound
from fsmount.render.escape import escape

if TYPE_CHECKING:
    from fsmount.cli.target import Target

PENDING, HELD, DEAD, DISCARDED = "pending", "held", "dead-letter", "discarded"
RETRY, FORCE = "retry", "force"
"""The directories of ``.relay`` that ops are in, and the verbs that are none of them."""
COMPARED = 1 << 20
"""Bytes of a version that are kept for comparing; of a longer one only length and digest are known."""


class Numbers(Struct, frozen=True, kw_only=True, rename="camel"):
    """``queue`` of ``status.json``; a blocked op is also counted as pending."""

    pending: int = 0
    sending: int = 0
    blocked: int = 0
    held: int = 0
    dead_letter: int = 0
    bytes: int = 0

    @property
    def unsent(self) -> int:
        """Ops that wait or are being sent."""
        return self.pending + self.sending


class Way(Struct, frozen=True, kw_only=True, rename="camel"):
    """``connection`` of ``status.json``."""

    state: str = ""


class Sent(Struct, frozen=True, kw_only=True, rename="camel"):
    """One of ``transfers`` of ``status.json``."""

    op_id: str = ""
    bytes_sent: int = 0


class Status(Struct, frozen=True, kw_only=True, rename="camel"):
    """What commands need of ``status.json``."""

    queue: Numbers = Numbers()
    health: str = ""
    damage: str | None = None
    connection: Way = Way()
    transfers: tuple[Sent, ...] = ()
    remote: str | None = None
    pid: int | None = None


class ShownOp(Struct, frozen=True, kw_only=True, rename="camel"):
    """What commands need of one op's JSON."""

    op_id: str
    path: str = ""
    state: str = ""
    kind: str = ""
    to_path: str | None = None
    reason: str | None = None
    hint: str | None = None
    provider: str = ""
    message: str = ""
    attempts: int = 0
    size: int | None = None
    base_revision: str | None = None
    blocked_by: str | None = None
    created_at: str = ""

    @property
    def target(self) -> str:
        """The name that the op writes."""
        return self.to_path or self.path


class Glance(Struct, frozen=True, kw_only=True):
    """Which ops are unresolved, and the numbers, at one moment."""

    pending: list[str]
    held: list[str]
    dead: list[str]
    status: Status


class Move(Struct, frozen=True, kw_only=True):
    """A person's gesture: ``mv SOURCE/OP.json VERB/``."""

    op_id: str
    source: str
    verb: str


class Version(Struct, frozen=True, kw_only=True):
    """One of the versions of a conflict. ``content`` is None where it is longer than ``COMPARED``."""

    size: int
    sha256: str
    content: bytes | None
    revision: str | None = None

    @classmethod
    def of(cls, pieces: Iterable[bytes], revision: str | None = None) -> Self:
        """Read to its end; memory stays within ``COMPARED`` and one piece."""
        digest, size, kept = hashlib.sha256(), 0, bytearray()
        for piece in pieces:
            digest.update(piece)
            size += len(piece)
            if size <= COMPARED:
                kept += piece
        content = bytes(kept) if size <= COMPARED else None
        return cls(size=size, sha256=digest.hexdigest(), content=content, revision=revision)


class Queue(Protocol):
    """One mount's ops. Every method raises TimedOut where a daemon is silent, FsmountError where it ended."""

    @property
    def served(self) -> bool:
        """Whether a daemon delivers the ops."""
        ...

    def status_json(self) -> bytes:
        """``status.json``."""
        ...

    def status_text(self) -> str:
        """The same for a person."""
        ...

    def glance(self) -> Glance:
        """The ids of what is unresolved, oldest first, and the numbers. An op that changes meanwhile may be in two."""
        ...

    def ops(self, directories: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """The directory and the JSON of each op there, as they are met; ops that vanish meanwhile are left out."""
        ...

    def show(self, op_id: str) -> tuple[str, bytes] | None:
        """The directory that the op is in and its JSON; None where there is none such."""
        ...

    def show_each(self, op_ids: Sequence[str]) -> Iterator[tuple[str, bytes] | None]:
        """The same of several."""
        ...

    def move(self, moves: Sequence[Move]) -> Iterator[FsmountError | None]:
        """Carries them out in turn; of each what came of it: NotFound or VerbRefused with the reason, None if done."""
        ...

    def version(self, op_id: str, side: str) -> Version | None:
        """``mine``, ``theirs`` or ``base`` of the op; None where it is not known."""
        ...


def status_of(queue: Queue) -> Status:
    """The numbers of the queue now."""
    return read_status(queue.status_json())


def read_status(text: bytes) -> Status:
    """The numbers in ``status.json``."""
    return msgspec.json.decode(text, type=Status)


def read_op(text: bytes) -> ShownOp:
    """One op's JSON."""
    return msgspec.json.decode(text, type=ShownOp)


def shown(queue: Queue, op_id: str) -> ShownOp | None:
    """One op; None where there is none such."""
    found = queue.show(op_id)
    return read_op(found[1]) if found else None


def unknown(op_id: str) -> NotFound:
    """The error for an op that is nowhere."""
    if len(op_id) != 29 or not op_id.startswith("op_"):
        return NotFound(f"no such op: {escape(op_id)}", hint="an op is named op_ and 26 letters and digits")
    return NotFound(f"no such op: {escape(op_id)}", hint="'fsmount writeback list' names those there are")


@contextmanager
def opened(target: Target) -> Iterator[Queue]:
    """The queue of the mount that is meant; holds the state directory's lock where no daemon does.

    Raises TimedOut where its daemon is silent, StateError where another program uses the state directory,
    JournalDamaged where nothing can be told, with a daemon or without one, NotFound where neither a daemon nor a state
    directory is left.
    """
    from fsmount.cli.live import LiveQueue

    if (live := LiveQueue.of(target)) is not None:
        live.check_journal()
        yield live
        return
    from fsmount.cli.atrest import AtRestQueue

    if target.state_dir is None or not target.state_dir.is_dir():
        raise NotFound(f"nothing is left of the mount at {target}: no daemon answers, and its state directory is gone")
    with AtRestQueue.under_lock(target.state_dir) as at_rest:
        yield at_rest
