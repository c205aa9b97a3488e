"""The ops and what the remote cannot hold: durable before any call returns."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager
from typing import Protocol

from fsmount.model import (
    Attempt,
    Base,
    Body,
    Claim,
    Counts,
    Delivered,
    Digest,
    DraftId,
    LocalNode,
    Op,
    OpId,
    Reason,
    Receipt,
    Record,
    RemotePath,
    Revision,
    State,
    Theirs,
    Totals,
)


class Journal(Protocol):
    """The ops, durable before any call returns. All of it is synchronous; each call is one transaction."""

    def transaction(self) -> AbstractContextManager[None]:
        """Joins the calls made within to one transaction: all of them or, if it is left by an exception, none.

        No checkpoint may come within. Watchers are called once, at its end.
        """
        ...

    # what a program did
    def begin_draft(self, draft_id: DraftId, path: RemotePath, base: Base, *, local: bool = False) -> None:
        """Records a draft before its first byte. ``local``: litter, which is never sent."""

    def move_draft(self, draft_id: DraftId, path: RemotePath, base: Base) -> None: ...
    def adopt_draft(self, draft_id: DraftId, path: RemotePath, base: Base) -> None:
        """A litter file's draft takes a name that is sent."""

    def put(
        self,
        draft_id: DraftId | None,
        path: RemotePath,
        shown: Base,
        body: Body,
        *,
        content_type: str,
        mtime: float,
        still_open: bool,
    ) -> OpId:
        """Journals what a flush or close promises.

        Coalesces with the newest op of ``path`` where that was never attempted; inherits its base; else made from
        ``shown``. ``still_open``: a handle that wrote it is still open.
        """
        ...

    def touch_draft(self, draft_id: DraftId) -> None:
        """The draft of a journalled op was written again: it is not due for ``open_settle``."""

    def end_draft(self, draft_id: DraftId) -> None:
        """The last handle that wrote it has closed."""

    def delete(self, path: RemotePath, shown: Base, *, settle: float | None = None, brake: int | None = None) -> None:
        """``brake``: with more than so many deletes within a minute, all of them that are not being sent are held, and
        every later one until a person decides. None: this delete neither counts nor is held.
        """

    def rename(
        self, old: RemotePath, new: RemotePath, shown_old: Base, shown_new: Base, *, group: str | None = None
    ) -> None:
        """Ops, drafts and local attributes of one file get another name.

        With a ``group`` it is one file of a directory, whose attributes ``rename_nodes`` has moved before.
        """

    def rename_nodes(self, old: RemotePath, new: RemotePath) -> None:
        """What only this mount keeps of the directory ``old`` and of everything below it is kept of ``new``.

        Nodes and attributes that stand at ``new`` or below are replaced. The ops of the files are ``rename``'s.
        """

    def renamed_there(self, old: RemotePath, new: RemotePath, before: Base, now: Base) -> None:
        """The remote itself gave the file another name: ops, drafts and local attributes follow.

        What was made from the version ``before`` is made from ``now``; nothing may be unsettled at ``new``.
        """

    def doubt_bases(self, path: RemotePath | None = None) -> int:
        """The remote's revisions (those of one file) mean something else now: what was made from one is compared by
        content when it is sent (``Base.doubted``). How many unsent ops that concerns.
        """
        ...

    def rmdir(self, path: RemotePath) -> None: ...
    def cancel_rmdir(self, path: RemotePath) -> bool:
        """Takes back an rmdir that was never attempted; whether there was one."""
        ...

    @property
    def damage(self) -> str:
        """Why nothing can be journalled any more, for a person; empty while it can."""
        ...

    def durable(self) -> None:
        """Makes everything journalled so far survive power loss; blocks for one disk flush."""

    # what the mount shows
    def shown(self, path: RemotePath) -> Record | None:
        """The newest unsettled op that decides what stands at ``path`` (as its path or a move's new name)."""
        ...

    def origin(self, move: Op) -> tuple[RemotePath, Base]:
        """Where the remote holds the bytes of an unsettled move that brings none."""
        ...

    def shown_below(self, directory: RemotePath) -> dict[str, Record | None]:
        """The same for every name in ``directory``; None where an op puts something deeper: a directory is there."""
        ...

    def implies_directory(self, path: RemotePath) -> bool:
        """Whether an unsettled op puts something below ``path``."""
        ...

    def takes_from(self, directory: RemotePath) -> bool:
        """Whether an unsettled op removes or moves away something below ``directory``."""
        ...

    def inherited(self, path: RemotePath) -> Base | None:
        """The base that the next op on ``path`` inherits, if any op is unsettled there."""
        ...

    # sending
    def claim(self, limit: int) -> list[Claim]: ...
    def next_due(self) -> float | None:
        """Monotonic time of the next op that may be sent; None if there is none."""
        ...

    def sealed(self, claim: Claim, body: Body) -> Claim:
        """Records what sealing the claimed op's draft gave; with ``body.draft`` still set, what it is about to give."""
        ...

    def acknowledge(self, claim: Claim, receipt: Receipt, attempt: Attempt) -> list[OpId]:
        """The op is done: its base is passed on to later ops of the path, older dead letters are superseded (returned).

        An ``attempt`` with an error (a refusal that turned out to be a lost answer) counts among the failed ones.
        """
        ...

    def step(self, claim: Claim, receipt: Receipt, attempt: Attempt) -> Claim:
        """A move's new name was acknowledged; the old one is to be deleted."""
        ...

    def postpone(
        self, claim: Claim, until: float, attempt: Attempt | None, *, charged: bool, shared: bool = False
    ) -> None:
        """Back to pending, due at monotonic ``until``.

        ``shared``: the request was for many ops and is no verdict on this one; it is in its history and counts nowhere.
        """

    def rebase(self, claim: Claim, base: Base, attempt: Attempt) -> None:
        """Back to pending, due now, at another base; uncharged."""

    def bury(
        self,
        claim: Claim,
        reason: Reason,
        message: str,
        attempt: Attempt | None,
        *,
        charged: bool,
        theirs: Theirs | None = None,
        at: RemotePath | None = None,
    ) -> None:
        """A dead letter; ``theirs`` is the remote's version that a conflict is with.

        ``at``: the name where the remote differs, if it is not the one that the next request would have changed.
        """

    def sent_digests(self, path: RemotePath) -> frozenset[Digest]:
        """The digests of all bodies of unsettled or discarded ops of ``path`` that were ever sent."""
        ...

    def expedite(self) -> None:
        """Makes due what only settles: closed ops that were never attempted."""

    def hurry(self, op_id: OpId) -> None:
        """Makes one pending op due now, even while a handle that wrote it is open; nothing happens to any other."""

    def keep_theirs(self, claim: Claim, theirs: Theirs) -> Claim:
        """What a forced op is about to replace was fetched: when the op is acknowledged its bytes become a discarded
        record.
        """
        ...

    def leaving(self) -> list[Body]:
        """Bodies that no row refers to any more; after ``durable`` no power failure brings a row back that does."""
        ...

    def released(self, among: Collection[Body] | None = None) -> list[Body]:
        """The same (of ``among``), once: the caller removes them from the spool."""
        ...

    def let_go(self, bodies: Iterable[Body]) -> None:
        """Bodies that a former run left behind: ``leaving`` names them, unless a row refers to them."""

    # what the provider behind the remote did with it
    def delivered_at(self, path: RemotePath, revision: Revision | None) -> Delivered | None:
        """Our newest accepted op of ``path``, if that is what stands there as ``revision``; None for anybody else's."""
        ...

    def delivered_as(self, remote_op_id: str) -> Delivered | None: ...
    def awaits_results(self) -> bool:
        """Whether anything is remembered whose result is not known."""
        ...

    def provider_failed(self, delivered: Delivered, message: str, attempt: Attempt) -> bool:
        """A dead letter ``provider-failed``; False where it is one already, is being tried again, or was given up."""
        ...

    def provider_succeeded(self, delivered: Delivered) -> bool:
        """Nothing more is awaited of it; whether a dead letter, or one that was to be tried again, has gone by that."""
        ...

    def replayed(self, claim: Claim) -> None:
        """The remote tries the claimed op again: its result is awaited once more."""

    # what a person decides
    def retry(self, op_id: OpId) -> None:
        """Raises VerbRefused: ENOENT gone, EBUSY being sent, damaged or with a newer op on its path; else EPERM.

        A held op is released: it does not count for the brake any more.
        """

    def force(self, op_id: OpId) -> None:
        """A dead ``conflict`` or ``remote-deleted`` is pending again, made from ``theirs``; raises as ``retry``."""

    def discard(self, op_id: OpId) -> None:
        """Gives up a pending, held or dead op; raises as ``retry``. What it had replaced unsent comes back."""

    def purge(self, op_id: OpId) -> None:
        """Forgets a discarded op and its bytes now; raises as ``retry``, EPERM for any other state."""

    def trim_discarded(self, limit: int) -> int:
        """While discarded bodies are more than ``limit`` bytes, forgets superseded ones, the oldest first; how many.

        What a person discarded stays.
        """
        ...

    def accept_theirs(self, path: RemotePath) -> bool:
        """The next change of ``path`` is made from the remote's version of its conflict; False where there is none."""
        ...

    def setting(self, name: str) -> str | None:
        """A word that outlives the daemon (``paused``)."""
        ...

    def keep_setting(self, name: str, value: str | None) -> None: ...

    # facts
    def record(self, op_id: OpId) -> Record | None: ...
    def records(self, state: State | None = None, *, limit: int | None = None) -> list[Record]: ...
    def op_ids(self, state: State, *, with_body: bool = False, reasons: Collection[Reason] = ()) -> list[OpId]:
        """The ids alone, oldest first: cheap for a hundred thousand.

        ``with_body``: only of ops that bring bytes. ``reasons``: only of ops, damaged ones not, with one of these.
        """
        ...

    def dead_by_reason(self) -> dict[str, int]:
        """How many dead letters there are of each reason."""
        ...

    def counts(self) -> Counts: ...
    def totals(self) -> Totals: ...
    def last_errors(self) -> dict[str, tuple[Record, Attempt]]:
        """The most recent failed attempt of an unresolved op, per provider."""
        ...

    def version(self) -> int:
        """Grows with every change of what ``records`` and ``counts`` tell."""
        ...

    def watch(self, changed: Callable[[], None]) -> None:
        """``changed`` is called after every transaction, on the loop's thread; it must not block."""

    def watch_leaving(self, leaves: Callable[[OpId], None]) -> None:
        """``leaves`` is called before an op's row is removed, within the transaction: ``record`` still tells of it."""

    def close(self) -> None: ...


class Attributes(Protocol):
    """What the remote cannot hold: modes, owners, times, empty directories, litter. Durable, follows renames."""

    def node(self, path: RemotePath) -> LocalNode | None: ...
    def nodes_in(self, directory: RemotePath) -> list[LocalNode]: ...
    def keep(self, node: LocalNode) -> None:
        """Writes the whole row of ``node.path``."""

    def forget(self, path: RemotePath) -> None:
        """The node and its extended attributes."""

    def xattrs(self, path: RemotePath) -> dict[str, bytes]:
        """Extended attributes that programs set; they follow renames and go with the name."""
        ...

    def keep_xattr(self, path: RemotePath, name: str, value: bytes | None) -> None:
        """None removes it."""
