"""What the parts of the uploader share.

Invariant: none of these change while the uploader runs.
"""

from __future__ import annotations

from dataclasses import dataclass

from msgspec import Struct

from fsmount.connection import Connection
from fsmount.model import Base, Body, Claim, Digest, OpKind, Receipt, RemotePath
from fsmount.ports import Clock, EventLog, Journal, Overlay, Remote, Spool


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The ports that the uploader stands between."""

    journal: Journal
    spool: Spool
    remote: Remote
    connection: Connection
    overlay: Overlay
    clock: Clock
    log: EventLog


class Claimed(Struct, frozen=True, kw_only=True):
    """A claim and what freezing its draft told: its length and digest, if a handle still has it open."""

    claim: Claim
    frozen: Body | None = None


class Request(Struct, frozen=True, kw_only=True):
    """One request for an op: ``kind`` is put, delete or rmdir; ``digest`` that of the bytes it brings.

    ``at`` is UTC epoch seconds, ``begun`` the same moment on the monotonic clock.
    """

    kind: OpKind
    path: RemotePath
    base: Base
    digest: Digest | None = None
    at: float
    begun: float


class Accepted(Struct, frozen=True, kw_only=True):
    """What the request wanted is so, by its own answer or, as ``note`` says, by what the remote holds anyway."""

    receipt: Receipt
    note: str = ""
