"""A remote with conditional writes, a spool and an uploader, small enough to be checked after every step."""

from __future__ import annotations

from pathlib import Path

from fsmount.journal import SqliteJournal, open_journal
from fsmount.model import (
    ABSENT,
    Attempt,
    Base,
    Body,
    Claim,
    Digest,
    DraftId,
    Op,
    OpId,
    OpKind,
    Reason,
    Receipt,
    Record,
    RemotePath,
    Revision,
    State,
    Theirs,
    Timing,
)
from tests.support.clock import ManualClock

TIMING = Timing(settle=0.3, max_settle=3.0, delete_settle=2.0, open_settle=5.0)


class Conflict(Exception):
    """The remote refused a write at another revision than it holds."""


class Vault:
    """The remote: one content and one revision a path, compare-and-swap, and every revision that ever was."""

    def __init__(self) -> None:
        self.files: dict[RemotePath, tuple[Revision, str]] = {}
        self.history: dict[tuple[RemotePath, Revision | None], str] = {}
        self._count = 0

    def base(self, path: RemotePath) -> Base:
        held = self.files.get(path)
        return ABSENT if held is None else Base(held[0], Digest(held[1]))

    def content(self, path: RemotePath) -> str | None:
        held = self.files.get(path)
        return None if held is None else held[1]

    def write(self, path: RemotePath, content: str) -> Revision:
        self._count += 1
        revision = Revision(f"r{self._count}")
        self.files[path] = (revision, content)
        self.history[path, revision] = content
        return revision

    def put(self, path: RemotePath, base: Base, content: str) -> Revision:
        self._expect(path, base)
        return self.write(path, content)

    def delete(self, path: RemotePath, base: Base) -> None:
        if path in self.files:
            self._expect(path, base)
            del self.files[path]

    def _expect(self, path: RemotePath, base: Base) -> None:
        if self.base(path).revision != base.revision:
            raise Conflict(path)


class World:
    """The journal with what stands around it. Contents are words; a content is its own digest."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock()
        self.path = folder / "journal.db"
        self.remote = Vault()
        self.drafts: dict[DraftId, str] = {}
        self.bodies: set[str] = set()
        self.claims: list[Claim] = []
        self.journal: SqliteJournal = open_journal(self.path, self.clock, TIMING)
        self._drafts = 0

    # what a program sees

    def shows(self, path: RemotePath) -> str | None:
        record = self.journal.shown(path)
        return self.remote.content(path) if record is None else self._content(record, path)

    def _content(self, record: Record, path: RemotePath) -> str | None:
        op = record.op
        if op.target != path or op.kind in (OpKind.DELETE, OpKind.RMDIR):
            return None
        if op.body is not None:
            return self.held(op.body)
        where, base = self.journal.origin(op)
        return self.remote.history[where, base.revision]

    def held(self, body: Body) -> str:
        if body.draft is not None and body.draft in self.drafts:
            return self.drafts[body.draft]
        assert body.digest in self.bodies, f"the spool has lost {body}"
        return body.digest

    def shown_base(self, path: RemotePath) -> Base:
        """What the mount hands to the journal: the base of what it shows."""
        record = self.journal.shown(path)
        if record is None:
            return self.remote.base(path)
        gone = record.op.target != path or record.op.kind in (OpKind.DELETE, OpKind.RMDIR)
        return ABSENT if gone else record.op.target_base

    # the spool

    def begin(self, path: RemotePath) -> DraftId:
        self._drafts += 1
        draft_id = DraftId(f"d{self._drafts}")
        self.drafts[draft_id] = ""
        inherited = self.journal.inherited(path)
        self.journal.begin_draft(draft_id, path, self.shown_base(path) if inherited is None else inherited)
        return draft_id

    def flush(self, draft_id: DraftId, path: RemotePath, content: str) -> OpId:
        self.drafts[draft_id] = content
        body = Body(size=len(content), digest=Digest(content), draft=draft_id)
        return self.journal.put(
            draft_id, path, self.shown_base(path), body, content_type="", mtime=self.clock.now(), still_open=True
        )

    def body(self, content: str) -> Body:
        """A sealed body in the spool."""
        self.bodies.add(content)
        return Body(size=len(content), digest=Digest(content))

    def sweep(self) -> None:
        for body in self.journal.released():
            if body.draft is not None:
                self.drafts.pop(body.draft, None)
            elif body.digest is not None:
                self.bodies.discard(body.digest)

    def reopen(self) -> list[OpId]:
        """Closes the journal, where it is not closed yet, and recovers it as a start does."""
        self.journal.close()
        self.claims.clear()
        self.journal = open_journal(self.path, self.clock, TIMING)
        found = self.journal.recover(lambda draft_id: len(self.drafts[draft_id]) if draft_id in self.drafts else None)
        digests, drafts = self.journal.bodies()
        self.bodies &= set(digests)
        self.drafts = {draft_id: content for draft_id, content in self.drafts.items() if draft_id in drafts}
        return found

    # the uploader

    def claim(self, limit: int = 256) -> list[Claim]:
        claims = self.journal.claim(limit)
        self.claims += claims
        return claims

    def settle(self, claim: Claim, *, lost: bool = False) -> None:
        """Sends the op; ``lost``: the remote does it, but no answer comes."""
        self.claims.remove(claim)
        claim = self._fetched(self._sealed(claim))
        try:
            if claim.op.kind is OpKind.MOVE and claim.op.step == 0:
                arrived = self._arrive(claim)
                if arrived is None:
                    return
                if lost:
                    self._no_answer(claim)
                    return
                claim = self.journal.step(claim, arrived, self.answer(200))
            self._last(claim, lost=lost)
        except Conflict:
            self._compare(claim)

    def refuse(self, claim: Claim) -> None:
        self.claims.remove(claim)
        claim = self._sealed(claim)
        self.journal.bury(claim, Reason.REJECTED, "no", self.answer(422), charged=True)

    def give_back(self, claim: Claim) -> None:
        self.claims.remove(claim)
        self.journal.postpone(claim, self.clock.monotonic(), None, charged=False)

    def answer(self, status: int) -> Attempt:
        error = None if status == 200 else f"{status}: no"
        return Attempt(at=self.clock.now(), status=status, error=error, duration=0.0)

    def _sealed(self, claim: Claim) -> Claim:
        body = claim.op.body
        if body is None or body.draft is None:
            return claim
        content = self.drafts.pop(body.draft)
        self.bodies.add(content)
        return self.journal.sealed(claim, Body(size=len(content), digest=Digest(content)))

    def _fetched(self, claim: Claim) -> Claim:
        """What a forced op is about to replace is fetched first, where the journal does not hold it."""
        path = claim.op.path if claim.op.step else claim.op.target
        held = claim.theirs is not None and claim.theirs.body is not None
        if not claim.forced or held or self.remote.content(path) is None:
            return claim
        return self.journal.keep_theirs(claim, self._theirs(path))

    def _theirs(self, path: RemotePath) -> Theirs:
        content = self.remote.content(path)
        assert content is not None
        return Theirs(base=self.remote.base(path), body=self.body(content))

    def _no_answer(self, claim: Claim) -> None:
        self.journal.postpone(claim, self.clock.monotonic() + 1.0, self.answer(0), charged=True)

    def _arrive(self, claim: Claim) -> Receipt | None:
        """A move's first request; None where it was settled."""
        op = claim.op
        content = op.body.digest if op.body is not None else self.remote.content(op.path)
        if content is None:
            wanted = op.base.digest
            if wanted is not None and self.remote.content(op.target) == wanted:
                self.journal.acknowledge(claim, self._receipt(op.target), self.answer(404))
            else:
                self.journal.bury(claim, Reason.REMOTE_DELETED, "gone", self.answer(404), charged=True, at=op.path)
            return None
        if op.body is None and content != op.base.digest:
            theirs = self._theirs(op.path)
            self.journal.bury(claim, Reason.CONFLICT, "changed", None, charged=False, theirs=theirs, at=op.path)
            return None
        if self.remote.content(op.target) != content or self.remote.base(op.target) == op.target_base:
            self.remote.put(op.target, op.target_base, content)
        return self._receipt(op.target)

    def _last(self, claim: Claim, *, lost: bool) -> None:
        op = claim.op
        if op.kind is OpKind.PUT:
            assert op.body is not None
            assert op.body.digest is not None
            self.remote.put(op.path, op.base, op.body.digest)
        else:
            self.remote.delete(op.path, op.base)
        if lost:
            self._no_answer(claim)
        else:
            self.journal.acknowledge(claim, self._receipt(op.target), self.answer(200))

    def _compare(self, claim: Claim) -> None:
        """The remote holds another revision: the same bytes, ours from before, or somebody's."""
        op = claim.op
        arriving = op.kind is OpKind.MOVE and op.step == 0
        path = op.target if arriving else op.path
        theirs, body = self.remote.content(path), op.body
        if op.kind is OpKind.PUT and body is not None and theirs == body.digest:
            self.journal.acknowledge(claim, self._receipt(path), self.answer(409))
        elif theirs is not None and (theirs == op.base_of(path).digest or theirs in self.journal.sent_digests(path)):
            self.journal.rebase(claim, self.remote.base(path), self.answer(409))
        else:
            reason = Reason.CONFLICT if theirs is not None else Reason.REMOTE_DELETED
            version = None if theirs is None else self._theirs(path)
            self.journal.bury(claim, reason, "changed", self.answer(409), charged=True, theirs=version)

    def _receipt(self, path: RemotePath) -> Receipt:
        base = self.remote.base(path)
        return Receipt(path=path, revision=base.revision, digest=base.digest)

    # everything the journal holds

    def kept(self) -> set[str]:
        """The contents that its rows keep."""
        bodies = [record.op.body for record in self.journal.records()]
        bodies += [record.theirs.body for record in self.journal.records() if record.theirs is not None]
        return {self.held(body) for body in bodies if body is not None}

    def records(self, *states: State) -> list[Record]:
        return [record for record in self.journal.records() if record.state in states]


def names(op: Op) -> set[RemotePath]:
    return {op.path, op.target}
