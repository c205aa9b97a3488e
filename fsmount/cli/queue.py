"""The queue of one mount as a command sees it, whether its daemon runs or not.

Invariant: both ways answer alike. With a daemon everything goes through ``.relay``, in a child; without one through the
state directory, under its lock.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import msgspec
from msgspec import Struct

from fsmount.errors import NotFound

if TYPE_CHECKING:
    from fsmount.cli.target import Target

PENDING, DEAD, DISCARDED = "pending", "dead-letter", "discarded"
RETRY = "retry"
"""The directories of ``.relay`` that ops are in, and the verb that is none of them."""


class Numbers(Struct, frozen=True, kw_only=True, rename="camel"):
    """``queue`` of ``status.json``; a blocked op is also counted as pending."""

    pending: int = 0
    sending: int = 0
    blocked: int = 0
    dead_letter: int = 0
    bytes: int = 0

    @property
    def unsent(self) -> int:
        """Ops that wait or are being sent."""
        return self.pending + self.sending


class Way(Struct, frozen=True, kw_only=True, rename="camel"):
    """``connection`` of ``status.json``."""

    state: str = ""


class Status(Struct, frozen=True, kw_only=True, rename="camel"):
    """What commands need of ``status.json``."""

    queue: Numbers = Numbers()
    health: str = ""
    connection: Way = Way()
    remote: str | None = None


class ShownOp(Struct, frozen=True, kw_only=True, rename="camel"):
    """What commands need of one op's JSON."""

    op_id: str
    path: str = ""
    state: str = ""
    to_path: str | None = None
    reason: str | None = None
    hint: str | None = None
    provider: str = ""
    message: str = ""
    blocked_by: str | None = None


class Queue(Protocol):
    """One mount's ops. Every method raises TimedOut where a daemon is silent."""

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

    def ids(self, directory: str) -> list[str]:
        """The ops in PENDING, DEAD or DISCARDED, oldest first."""
        ...

    def show(self, op_id: str) -> tuple[str, bytes] | None:
        """The directory that the op is in and its JSON; None where there is none such."""
        ...

    def move(self, op_id: str, source: str, verb: str) -> None:
        """Carries out RETRY or DISCARDED on an op in ``source``. Raises NotFound or VerbRefused, with the reason."""
        ...


def status_of(queue: Queue) -> Status:
    """The numbers of the queue now."""
    return read_status(queue.status_json())


def read_status(text: bytes) -> Status:
    """The numbers in ``status.json``."""
    return msgspec.json.decode(text, type=Status)


def shown(queue: Queue, op_id: str) -> ShownOp | None:
    """One op; None where there is none such."""
    found = queue.show(op_id)
    return msgspec.json.decode(found[1], type=ShownOp) if found else None


def unknown(op_id: str) -> NotFound:
    """The error for an op that is nowhere."""
    return NotFound(f"no such op: {op_id}", hint="'fsmount writeback status' names the dead letters")


def steer(queue: Queue, op_id: str, verb: str, sources: Sequence[str]) -> str:
    """Carries out ``verb`` on an op in one of ``sources``, and says what was done; an op that is there already is left.

    Raises NotFound or VerbRefused.
    """
    found = queue.show(op_id)
    if found is None:
        raise unknown(op_id)
    where, path = found[0], msgspec.json.decode(found[1], type=ShownOp).path
    if where not in sources:
        return f"{op_id} is {where} already: {path}"
    queue.move(op_id, where, verb)
    return f"{op_id} {'will be tried again' if verb == RETRY else 'is given up'}: {path}"


@contextmanager
def opened(target: Target) -> Iterator[Queue]:
    """The queue of the mount that is meant; holds the state directory's lock where no daemon does.

    Raises TimedOut where its daemon is silent, StateError where another program uses the state directory, NotFound
    where neither a daemon nor a state directory is left.
    """
    from fsmount.cli.live import LiveQueue

    if (live := LiveQueue.of(target)) is not None:
        yield live
        return
    from fsmount.cli.atrest import AtRestQueue

    if target.state_dir is None or not target.state_dir.is_dir():
        raise NotFound(f"nothing is left of the mount at {target}: no daemon answers, and its state directory is gone")
    with AtRestQueue.under_lock(target.state_dir) as at_rest:
        yield at_rest
