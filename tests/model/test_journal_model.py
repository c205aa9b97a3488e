"""Programs, a remote, lost answers and crashes against the journal: what shows, what arrives, what must not vanish."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fsmount.errors import VerbRefused
from fsmount.journal.part import FORCEABLE
from fsmount.model import ABSENT, DraftId, Op, OpId, OpKind, Record, RemotePath, Revision, State, is_below
from tests.model.world import World, names

PATHS = [RemotePath("/p/a/x"), RemotePath("/p/a/y"), RemotePath("/p/b/z")]
path = st.sampled_from(PATHS)
number = st.integers(min_value=0, max_value=20)


class JournalMachine(RuleBasedStateMachine):
    """``sees``: what the programs here see at each path. ``given_up``: contents that somebody overwrote or removed."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.world = World(self.folder)
        self.sees: dict[RemotePath, str | None] = dict.fromkeys(PATHS)
        self.open: dict[RemotePath, DraftId] = {}
        self.written: set[str] = set()
        self.given_up: set[str] = set()
        self.known: set[str] = set()
        self.words = 0

    def teardown(self) -> None:
        self.world.journal.close()
        shutil.rmtree(self.folder)

    def word(self, kind: str) -> str:
        self.words += 1
        return f"{kind}{self.words}"

    @initialize(there=st.sets(path))
    def begin(self, there: set[RemotePath]) -> None:
        for name in sorted(there):
            self.foreign(name)

    # programs

    def replaced(self, name: RemotePath) -> None:
        """A program saw what is at ``name`` and takes it away or writes it over."""
        now = self.sees[name]
        if now is not None:
            self.given_up.add(now)
            self.known.add(now)

    @rule(name=path, close=st.booleans())
    def write(self, name: RemotePath, close: bool) -> None:
        self.replaced(name)
        draft = self.open.get(name)
        if draft is None or draft not in self.world.drafts or self.frozen(draft):
            old, draft = draft, self.world.begin(name)
            if old is not None:
                self.world.journal.end_draft(old)
        content = self.word("w")
        self.written.add(content)
        self.world.flush(draft, name, content)
        self.open[name] = draft
        self.sees[name] = content
        if close:
            self.close(name)

    def frozen(self, draft: DraftId) -> bool:
        return any(claim.op.body is not None and claim.op.body.draft == draft for claim in self.world.claims)

    @rule(name=path)
    def close(self, name: RemotePath) -> None:
        draft = self.open.pop(name, None)
        if draft is not None:
            self.world.journal.end_draft(draft)

    @rule(name=path, brake=st.sampled_from([None, 0, 1]))
    def unlink(self, name: RemotePath, brake: int | None) -> None:
        if self.sees[name] is None:
            return
        base = self.world.shown_base(name)
        self.replaced(name)
        self.close(name)
        self.world.journal.delete(name, base, brake=brake)
        self.sees[name] = None
        self.uncovered(name)

    @rule(name=path)
    def create_and_remove(self, name: RemotePath) -> None:
        """Nothing was flushed: the journal hears of the removal of a name that it may know otherwise."""
        if self.sees[name] is None:
            draft = self.world.begin(name)
            self.world.journal.end_draft(draft)
            self.world.journal.delete(name, ABSENT)
            self.uncovered(name)

    @rule(directory=st.sampled_from(["/p/a", "/p/b"]))
    def rmdir(self, directory: str) -> None:
        below = [name for name in PATHS if is_below(name, RemotePath(directory))]
        if all(self.sees[name] is None for name in below):
            self.world.journal.rmdir(RemotePath(directory))

    @rule(old=path, new=path)
    def rename(self, old: RemotePath, new: RemotePath) -> None:
        if old == new or self.sees[old] is None:
            return
        bases = self.world.shown_base(old), self.world.shown_base(new)
        self.replaced(new)
        self.close(new)
        if self.sees[old] is not None:
            self.known.add(self.sees[old] or "")
        self.world.journal.rename(old, new, *bases)
        self.sees[new], self.sees[old] = self.sees[old], None
        if old in self.open:
            self.open[new] = self.open.pop(old)
        self.uncovered(old)
        self.uncovered(new)

    def uncovered(self, name: RemotePath) -> None:
        """Where no op is left to send, what somebody put there meanwhile is seen again."""
        if self.world.journal.shown(name) is not None:
            return
        theirs = self.world.remote.content(name)
        gone = theirs is None and self.sees[name] in self.given_up - self.written
        if gone or (theirs is not None and theirs not in self.known | self.written):
            self.sees[name] = theirs

    # somebody else

    @rule(name=path)
    def foreign(self, name: RemotePath) -> None:
        shown_here = self.world.journal.shown(name)
        was = self.world.remote.content(name)
        if was is not None:
            self.given_up.add(was)
        content = self.word("f")
        self.world.remote.write(name, content)
        if shown_here is None:
            self.sees[name] = content

    @rule(name=path)
    def foreign_delete(self, name: RemotePath) -> None:
        was = self.world.remote.files.pop(name, None)
        if was is not None:
            self.given_up.add(was[1])
            if self.world.journal.shown(name) is None:
                self.sees[name] = None

    # sending

    @rule(seconds=st.sampled_from([0.1, 0.4, 2.5, 10.0]))
    def wait(self, seconds: float) -> None:
        self.world.clock.advance(seconds)

    @rule(limit=st.sampled_from([1, 256]))
    def claim(self, limit: int) -> None:
        self.world.claim(limit)

    @precondition(lambda self: self.world.claims)
    @rule(which=number, lost=st.booleans())
    def send(self, which: int, lost: bool) -> None:
        claim = self.world.claims[which % len(self.world.claims)]
        before = dict(self.world.remote.files)
        self.world.settle(claim, lost=lost)
        self.check_overwritten(before)
        self.after_verdict(claim.op)

    def check_overwritten(self, before: dict[RemotePath, tuple[Revision, str]]) -> None:
        """Only what a program here had seen, or what we sent ourselves, may go from the remote by our doing."""
        for name, (_, content) in before.items():
            if self.world.remote.content(name) != content:
                assert content in self.known or content in self.written, f"{content} of {name} was never seen here"

    @precondition(lambda self: self.world.claims)
    @rule(which=number)
    def refuse(self, which: int) -> None:
        claim = self.world.claims[which % len(self.world.claims)]
        self.world.refuse(claim)
        self.after_verdict(claim.op)

    @precondition(lambda self: self.world.claims)
    @rule(which=number)
    def give_back(self, which: int) -> None:
        self.world.give_back(self.world.claims[which % len(self.world.claims)])

    def after_verdict(self, op: Op) -> None:
        """A dead delete shows again what is there; a dead letter of other kinds changes nothing that is seen.

        Once a move is done, what somebody put at its new name since that arrived is seen.
        """
        record = self.world.journal.record(op.op_id)
        if record is None and op.kind is OpKind.MOVE:
            self.uncovered(op.target)
        elif record is not None and record.state is State.DEAD and op.kind is OpKind.DELETE:
            self.look_again(record)

    def look_again(self, record: Record) -> None:
        for name in names(record.op) & set(PATHS):
            self.sees[name] = self.world.shows(name)

    # a person

    @rule(which=number)
    def retry(self, which: int) -> None:
        self.redrive(which, self.world.records(State.DEAD, State.DISCARDED), self.world.journal.retry)

    @rule(which=number)
    def force(self, which: int) -> None:
        conflicts = [record for record in self.world.records(State.DEAD) if record.reason in FORCEABLE]
        record = self.redrive(which, conflicts, self.world.journal.force)
        if record is not None and record.theirs is not None and record.theirs.body is not None:
            self.known.add(self.world.held(record.theirs.body))

    def redrive(self, which: int, records: list[Record], verb: Callable[[OpId], None]) -> Record | None:
        """What stood at its names until now was seen by the person who says so."""
        record = self.decide(which, records, verb)
        if record is not None:
            for name in names(record.op) & set(PATHS):
                self.given_up.add(self.sees[name] or "")
            self.look_again(record)
        return record

    @rule(which=number)
    def release(self, which: int) -> None:
        """Nothing changes for programs."""
        self.decide(which, self.world.records(State.HELD), self.world.journal.retry)

    @rule(which=number)
    def discard(self, which: int) -> None:
        records = self.world.records(State.PENDING, State.HELD, State.DEAD)
        before = {record.op.op_id for record in self.world.records(State.DISCARDED)}
        record = self.decide(which, records, self.world.journal.discard)
        if record is not None:
            self.look_again(record)
            for other in self.world.records(State.PENDING, State.HELD):
                if other.op.op_id in before:
                    self.look_again(other)

    def decide(self, which: int, records: list[Record], verb: Callable[[OpId], None]) -> Record | None:
        if not records:
            return None
        record = records[which % len(records)]
        if any(name in self.open for name in names(record.op)):
            return None
        try:
            verb(record.op.op_id)
        except VerbRefused:
            return None
        return record

    @rule()
    def crash(self) -> None:
        self.open.clear()
        for op_id in self.world.reopen():
            record = self.world.journal.record(op_id)
            assert record is not None
            assert record.state is State.DEAD
            self.look_again(record)

    @rule()
    def drain(self) -> None:
        """Everything that can be sent is, in bounded time; what stays pending says which dead letter it waits for."""
        for name in list(self.open):
            self.close(name)
        for _ in range(60):
            for claim in list(self.world.claims):
                before = dict(self.world.remote.files)
                self.world.settle(claim)
                self.check_overwritten(before)
                self.after_verdict(claim.op)
            due = self.world.journal.next_due()
            if due is None:
                break
            self.world.clock.advance(max(0.0, due - self.world.clock.monotonic()))
            assert self.world.claim(), "an op is due and cannot be claimed"
        else:
            raise AssertionError("the queue does not run dry")
        left = self.world.records(State.PENDING)
        assert self.world.journal.counts().blocked == len(left)
        for record in left:
            found = self.world.journal.record(record.op.op_id)
            assert found is not None
            assert found.blocked_by is not None, f"{record.op} waits for nothing"

    # always

    @invariant()
    def programs_see_what_they_made(self) -> None:
        self.world.sweep()
        for name, content in self.sees.items():
            shown = self.world.shows(name)
            assert shown == content, f"{name}: {shown}, not {content}"

    @invariant()
    def what_is_blocked_says_so(self) -> None:
        pending = [self.world.journal.record(record.op.op_id) for record in self.world.records(State.PENDING)]
        named = [record for record in pending if record is not None and record.blocked_by is not None]
        assert self.world.journal.counts().blocked == len(named)

    @invariant()
    def what_is_behind_a_held_op_is_held(self) -> None:
        for record in self.world.records(State.PENDING):
            if record.op.kind in (OpKind.RMDIR, OpKind.MOVE) and not self.world.journal._is_released(record.op.op_id):
                assert self.world.journal._barrier(record.op.seq, State.HELD) is None

    @invariant()
    def listings_and_lookups_agree(self) -> None:
        for directory in ("/p/a", "/p/b"):
            below = self.world.journal.shown_below(RemotePath(directory))
            for name in PATHS:
                if is_below(name, RemotePath(directory)):
                    assert below.get(name.rpartition("/")[2]) == self.world.journal.shown(name)

    @invariant()
    def no_content_vanishes(self) -> None:
        held = self.world.kept() | {content for _, content in self.world.remote.files.values()}
        assert self.written <= held | self.given_up

    @invariant()
    def no_two_requests_touch_related_names(self) -> None:
        for one in self.world.claims:
            for other in self.world.claims:
                assert one is other or not names(one.op) & names(other.op)


TestJournal = JournalMachine.TestCase
TestJournal.settings = settings(
    deadline=None, max_examples=80, stateful_step_count=40, suppress_health_check=list(HealthCheck)
)
