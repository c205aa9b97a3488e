"""Programs, a failing remote, other writers, events out of order, a person and crashes, at random, against a model.

What is checked are the invariants at the end of the semantics: (1) no acknowledged byte is lost, (2) nobody's version
is replaced unseen, (3) what was removed stays removed and what was written arrives, (4) nothing waits for ever
unexplained. ``FSMOUNT_MACHINE_EXAMPLES`` plays more than the suite has time for.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fsmount.errors import FileError, RemoteError, VerbRefused
from fsmount.model import Change, Feed, Kind, Record, RemotePath, State, is_below
from tests.faults.crash import CrashAt, Killed
from tests.faults.life import Life, emptied
from tests.faults.loop import Loop
from tests.faults.remote import FaultyRemote, cut, lost, refused, unanswered
from tests.support.fake_remote import Fault
from tests.support.trio_clock import TrioClock

EXAMPLES = int(os.environ.get("FSMOUNT_MACHINE_EXAMPLES", "80"))
TIMEOUT = 30.0
"""Of one system call, as a mount has it."""
DIRECTORIES = ("/a", "/b")
PATHS = tuple(f"{directory}/{name}" for directory in DIRECTORIES for name in ("x", "y", "x~"))
SEEN: Counter[str] = Counter()
FAULTS: dict[str, Callable[[str, int, int], Fault]] = {
    "lost": lost, "cut": cut, "unanswered": unanswered,
    **{str(status): partial(refused, status) for status in (403, 413, 422, 429, 500, 503)},
}  # fmt: skip
METHODS = ("put", "put_many", "delete", "copy_metadata", "read", "listing", "remove_directory")
TROUBLE = (*sorted(FAULTS), "offline", "hang", "wrong revision")
path = st.sampled_from(PATHS)
number = st.integers(min_value=0, max_value=9)


@pytest.fixture(scope="module", autouse=True)
def seen(memory: Path) -> Iterator[None]:
    """A run in which nothing was written, nothing crashed or no fault struck has shown nothing."""
    SEEN.clear()
    FilesystemMachine.folder = memory
    yield
    print(f"\nstate machine: {dict(SEEN)}")
    assert all(SEEN[what] > 0 for what in ("acknowledged writes", "crashes", "faults", "foreign writes")), dict(SEEN)


class Open:
    """A handle; ``path`` is None once its file has no name. ``content`` was flushed, ``dirty`` was not yet."""

    def __init__(self, number: int, path: str) -> None:
        self.number = number
        self.path: str | None = path
        self.content: bytes | None = None
        self.dirty: bytes | None = None


class FilesystemMachine(RuleBasedStateMachine):
    """``mine``: what programs here were told stands at a name, None: removed; unknown where somebody else had a say.

    ``written`` was acknowledged, ``given_up`` was overwritten or removed by somebody who could see it, ``known`` was
    shown to a program here before it wrote there. At ``disputed`` names somebody else wrote lately. ``replaced`` tells
    what a content takes the place of as soon as it is durable, whatever the program was told.
    """

    folder: Path
    """Of all runs, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        emptied(self.folder)
        self.loop = Loop()
        self.words = 0
        self.mine: dict[str, bytes | None] = {}
        self.open: dict[str, Open] = {}
        self.written: set[bytes] = set()
        self.given_up: set[bytes] = set()
        self.known: set[bytes] = set()
        self.replaced: dict[bytes, bytes] = {}
        self.disputed: set[str] = set()
        self.gates: list[trio.Event] = []
        self.heard = 0
        self.late: list[Change] = []
        self.effects = 0
        self.broken: BaseException | None = None
        self.loop.call(self._begin)

    async def _begin(self) -> None:
        self.remote = FaultyRemote(now=lambda: 1_700_000_000.0 + self.loop.clock.current_time())
        self.life: Life | None = None
        self.feed, self.max_deletes = Feed.NONE, 100
        self.next_crash: int | None = None
        self.ended = trio.Event()
        self.ended.set()

    def teardown(self) -> None:
        SEEN["faults"] += self.remote.struck
        SEEN["acknowledged writes"] += len(self.written)
        if self.life is not None:
            self.loop.call(self._kill)
            SEEN["crashes"] -= 1
        self.loop.close()

    def word(self, kind: str) -> bytes:
        self.words += 1
        return f"{kind}{self.words}".encode()

    @initialize(there=st.sets(path), live=st.booleans(), braking=st.booleans())
    def begin(self, there: set[str], live: bool, braking: bool) -> None:
        self.feed, self.max_deletes = (Feed.LIVE if live else Feed.NONE), (1 if braking else 100)
        for name in sorted(there):
            self.remote.write(name, self.word("f"))

    # the daemon

    async def alive(self) -> Life:
        """The daemon that runs; after a crash the next one, which may crash while it recovers."""
        while self.life is None or self.life.crash.dead:
            if self.life is not None:
                await self._kill()
            life = Life(self.folder, self.remote, TrioClock(), CrashAt(self.next_crash))
            self.next_crash = None
            self.life = life
            life.connection.feed = self.feed
            life.filesystem.max_deletes = self.max_deletes
            try:
                life.recover()
            except Killed:
                continue
            self._held(life)
            await self.loop.nursery.start(self._run, life)
        return self.life

    async def _run(self, life: Life, task_status: trio.TaskStatus[None]) -> None:
        """The daemon, and the requests that it works on."""
        self.ended = trio.Event()
        try:
            async with trio.open_nursery() as self.tasks:
                self.tasks.start_soon(life.run)
                task_status.started()
        except* Killed:
            pass
        except* Exception as error:  # noqa: BLE001 - told by the next rule
            self.broken = error
        finally:
            self.ended.set()

    async def _kill(self) -> None:
        """Whatever was in memory is gone."""
        assert self.life is not None
        self.life.crash.kill()
        if not self.ended.is_set():
            self.tasks.cancel_scope.cancel()
            await self.ended.wait()
        self.life.end()
        self.life = None
        self.late.clear()
        for handle in self.open.values():
            if handle.dirty is not None and handle.content is not None:
                self.given_up.add(handle.content)
        self.open.clear()
        SEEN["crashes"] += 1

    def program(self, act: Callable[[Life], Awaitable[None]], *names: str) -> bool:
        """What a program does, within the deadline of a system call; whether it was told that it is done.

        Where the daemon dies in the middle nobody knows what stands at ``names``.
        """
        return self.loop.call(self._program, act, names)

    async def _program(self, act: Callable[[Life], Awaitable[None]], names: tuple[str, ...]) -> bool:
        life, outcome = await self.alive(), [""]

        async def do() -> None:
            try:
                with trio.fail_after(TIMEOUT):
                    await act(life)
                outcome[0] = "done"
            except (FileError, RemoteError, trio.TooSlowError, FileNotFoundError):
                outcome[0] = "refused"
            except Killed:
                outcome[0] = "killed"
            except AssertionError as error:
                outcome[0], self.broken = "broken", error

        self.tasks.start_soon(do)
        answered = await self.loop.until(lambda: outcome[0] != "" or self.ended.is_set(), 2 * TIMEOUT)
        await self._settle(names if outcome[0] != "done" else ())
        assert answered, "the system call hangs"
        return outcome[0] == "done"

    async def _settle(self, doubtful: Iterable[str] = ()) -> None:
        if self.life is not None and self.life.crash.dead:
            for name in doubtful:
                self.forget(name)
            await self._kill()
        if self.broken is not None:
            raise self.broken

    def forget(self, name: str) -> None:
        self.mine.pop(name, None)

    async def look(self, life: Life, name: str) -> bytes | None:
        """A program looks at what stands there, and so may overwrite or remove it."""
        content = await life.read(name)
        node = await life.node(name)
        revision = None if node is None or node.shown is None else node.shown.base.revision
        if revision is not None:
            self.known.add(self.remote.contents.get(revision, b""))
        if content is not None:
            self.known.add(content)
        return content

    # programs

    @rule(names=st.lists(path, min_size=1, max_size=4))
    def saves(self, names: list[str]) -> None:
        for name in names:
            self.save(name)

    @rule(name=path)
    def save(self, name: str) -> None:
        """Another program than those that have it open: the whole file at once."""
        content = self.word("w")

        async def act(life: Life) -> None:
            before = await self.look(life, name)
            handle = await life.create(name)
            await life.write(handle, content)
            self.replaced[content] = before or b""
            await life.flush(handle)
            self.acknowledged(name, content, before)
            await life.release(handle)
            assert await life.read(name) == content, "what was written is read"

        if name not in self.open:
            self.program(act, name)

    def acknowledged(self, name: str, content: bytes, before: bytes | None) -> None:
        self.written.add(content)
        self.mine[name] = content
        if before is not None:
            self.given_up.add(before)

    @rule(name=path)
    def opens(self, name: str) -> None:
        async def act(life: Life) -> None:
            before = await self.look(life, name)
            handle = self.open[name] = Open(await life.create(name, truncate=False), name)
            handle.dirty = b"" if before is None else None

        if name not in self.open:
            self.program(act, name)

    @rule(which=number)
    def write(self, which: int) -> None:
        """Over the first bytes, and cut to that."""
        if not self.open:
            return
        handle = self.a_handle(which)
        content = self.word("w")

        async def act(life: Life) -> None:
            if handle.path is not None:
                before = await life.read(handle.path)
                if before is not None:
                    self.given_up.add(before)
            await life.write(handle.number, content)
            node = life.filesystem.files.handle(handle.number).node
            await life.filesystem.setattr(node, size=len(content), handle=handle.number)
            handle.dirty = content

        self.program(act, *self.names_of(handle))

    @rule(which=number, close=st.booleans())
    def flush(self, which: int, close: bool) -> None:
        if not self.open:
            return
        handle = self.a_handle(which)

        async def act(life: Life) -> None:
            await life.flush(handle.number)
            if handle.dirty is not None and handle.path is not None:
                self.written.add(handle.dirty)
                handle.content, handle.dirty = handle.dirty, None
                self.mine[handle.path] = handle.content
            if close:
                await life.release(handle.number)

        if self.program(act, *self.names_of(handle)) and close:
            self.open = {key: other for key, other in self.open.items() if other is not handle}

    def a_handle(self, which: int) -> Open:
        return list(self.open.values())[which % len(self.open)]

    def names_of(self, handle: Open) -> tuple[str, ...]:
        return () if handle.path is None else (handle.path,)

    @rule(name=path)
    def unlink(self, name: str) -> None:
        async def act(life: Life) -> None:
            self.take(await self.look(life, name))
            local = await self.is_local(life, name)
            await life.unlink(name)
            self.mine[name] = None
            if local:
                self.forget(name)
            self.unnamed(name)

        self.program(act, name)

    async def is_local(self, life: Life, name: str) -> bool:
        """A temporary of this mount: where it goes or comes, what the remote has under its name is not touched."""
        node = await life.node(name)
        return node is not None and node.shown is not None and life.filesystem.tree.is_local(node)

    def take(self, content: bytes | None) -> None:
        if content is not None:
            self.given_up.add(content)

    def unnamed(self, name: str) -> None:
        """Whoever has the file open goes on without a name."""
        handle = self.open.pop(name, None)
        if handle is not None:
            handle.path = None
            self.open[f"gone {handle.number}"] = handle

    @rule(old=path, new=path)
    def rename(self, old: str, new: str) -> None:
        async def act(life: Life) -> None:
            moved = await self.look(life, old)
            self.take(await self.look(life, new))
            local = await self.is_local(life, old)
            await life.rename(old, new)
            self.unnamed(new)
            self.move(old, new, moved)
            if local:
                self.forget(old)

        if old != new:
            self.program(act, old, new)

    def move(self, old: str, new: str, moved: bytes | None) -> None:
        before = self.mine.get(old, b"")
        self.mine[old] = None
        self.forget(new)
        if moved is not None and before == moved:
            self.mine[new] = moved
        if old in self.open:
            handle = self.open[new] = self.open.pop(old)
            handle.path = new

    @rule(verb=st.sampled_from(["rename", "mkdir", "rmdir"]), which=st.permutations(DIRECTORIES))
    def directory(self, verb: str, which: list[str]) -> None:
        old, new = which

        async def rename(life: Life) -> None:
            contents = {name: await self.look(life, name) for name in self.below(old)}
            await life.rename(old, new)
            for name, content in contents.items():
                if content is not None or name in self.open:
                    self.move(name, new + name.removeprefix(old), content)

        if verb == "rename":
            self.program(rename, *PATHS)
        else:
            self.program(lambda life: life.mkdir(old) if verb == "mkdir" else life.rmdir(old))

    def below(self, above: str) -> list[str]:
        return [name for name in PATHS if is_below(RemotePath(name), RemotePath(above))]

    # somebody else

    @rule(name=path, gone=st.booleans())
    def foreign(self, name: str, gone: bool) -> None:
        before = self.remote.content(name)
        if gone and before is None:
            return
        self.take(before)
        if gone:
            self.remote.remove(name)
        else:
            self.remote.write(name, self.word("f"))
        SEEN["foreign writes"] += 1
        self.disputed.add(name)
        self.forget(name)

    # the remote

    @rule(
        method=st.sampled_from(METHODS), kind=st.sampled_from(TROUBLE), nth=st.integers(1, 3), times=st.integers(1, 3)
    )
    def trouble(self, method: str, kind: str, nth: int, times: int) -> None:
        if kind == "offline":
            self.remote.online = not self.remote.online
        elif kind == "hang":
            self.gates.append(self.remote.hold(method))
        elif kind == "wrong revision":
            self.remote.misreport("put", self.word("wrong").decode())
        else:
            self.remote.script(FAULTS[kind](method, nth, times))

    @rule(name=path, kind=st.sampled_from(sorted(FAULTS)), crashing=st.booleans())
    def badly_delivered(self, name: str, kind: str, crashing: bool) -> None:
        """The request that brings it fails, and the daemon may die of it."""
        self.remote.script(FAULTS[kind]("put_many", 1, 1))
        self.save(name)
        if crashing:
            self.crash(points=4, recovering=False)
        self.wait(1.0)

    @rule(seconds=st.sampled_from([0.1, 0.4, 2.5, 11.0, 70.0]))
    def wait(self, seconds: float) -> None:
        async def act() -> None:
            await self.alive()
            await self.loop.advance(seconds)
            await self._settle()

        self.loop.call(act)

    @rule(which=number)
    def event(self, which: int) -> None:
        """One of the events that were not told yet, not always the oldest."""

        async def act() -> None:
            life = await self.alive()
            self._listen()
            if self.late:
                life.filesystem.arrivals.remote_changed(self.late.pop(which % len(self.late)))
            await self._settle()

        self.loop.call(act)

    def _listen(self) -> None:
        new = self.remote._events[self.heard :]
        self.heard += len(new)
        self.late += [change for change in new if isinstance(change, Change)]

    # a person

    @rule(which=number, verb=st.sampled_from(["retry", "force", "discard"]))
    def decide(self, which: int, verb: str) -> None:
        async def act() -> None:
            life = await self.alive()
            records = life.records(State.PENDING, State.HELD, State.DEAD, State.DISCARDED)
            if not records:
                return
            record = records[which % len(records)]
            self.decided_over(life, record)
            try:
                getattr(life.decisions, verb)(record.op.op_id)
            except (VerbRefused, Killed):
                return
            finally:
                self.decided(life, record)
                await self._settle()

        self.loop.call(act)

    def decided_over(self, life: Life, record: Record) -> None:
        """What stands at its names is seen by who decides that this op goes there, or that it does not."""
        for name in {record.op.path, record.op.target}:
            shown = life.plain_journal.shown(name)
            self.take(None if shown is None else life.content(shown.op.body))
            self.take(self.remote.content(name))

    def decided(self, life: Life, record: Record) -> None:
        for name in PATHS:
            if name in {record.op.path, record.op.target} or is_below(RemotePath(name), record.op.path):
                self.forget(name)
        if record.theirs is not None and record.theirs.base.revision is not None:
            self.known.add(self.remote.contents.get(record.theirs.base.revision, b""))

    # crashes

    @rule(points=st.integers(0, 12), recovering=st.booleans())
    def crash(self, points: int, recovering: bool) -> None:
        """After so many points from here, and after so many of the next recovery."""

        async def act() -> None:
            life = await self.alive()
            if recovering:
                self.next_crash = points
            life.crash.point = len(life.crash.passed) + points
            if points == 0:
                await self._kill()

        self.loop.call(act)

    # what must be so

    @rule()
    def drain(self) -> None:
        """Everything is told and everything that can be sent is sent."""
        for name in list(self.open):
            self.close(name)
        self.loop.call(self._drain)

    def close(self, key: str) -> None:
        handle = self.open.get(key)
        if handle is not None:
            self.flush(list(self.open).index(key), close=True)

    async def _drain(self) -> None:
        self.remote.online = True
        SEEN["faults"] += self.remote.struck
        self.remote.faults = [fault for fault in self.remote.faults if fault.gate is not None]
        for gate in self.gates:
            gate.set()
        life = await self.alive()
        life.crash.point = None
        self._listen()
        for change in self.late:
            life.filesystem.arrivals.remote_changed(change)
        self.late.clear()
        quiet = await self.loop.until(lambda: self._at_rest(life) or life.crash.dead, 3000.0)
        await self._settle()
        assert quiet, f"undue for ever: {life.records(State.PENDING, State.SENDING)}"
        # For a second a failed read is answered alike.
        await self.loop.advance(2.0)
        self.tasks.start_soon(self._compare, life)
        await self.loop.advance(TIMEOUT)
        await self._settle()
        # Where an op is left, what somebody else wrote may come to light when it is given up.
        left = {str(name) for record in life.records() for name in (record.op.path, record.op.target)}
        self.disputed &= left
        self.mine.clear()

    @staticmethod
    def _at_rest(life: Life) -> bool:
        waiting = life.records(State.PENDING, State.SENDING)
        return life.connection.usable and all(record.blocked_by is not None for record in waiting)

    async def _compare(self, life: Life) -> None:
        """What a program was told is so, there and here, unless an op says why not."""
        try:
            life.filesystem.arrivals.missed()
            touched = {name for record in life.records() if record.state is not State.DISCARDED
                       for name in (record.op.path, record.op.target)}  # fmt: skip
            for name in PATHS:
                if any(name == at or is_below(RemotePath(name), at) for at in touched):
                    continue
                node, there = await life.node(name), self.remote.content(name)
                local = node is not None and node.shown is not None and node.shown.local
                if local or (node is not None and node.kind is Kind.DIRECTORY):
                    continue
                assert await life.read(name) == there, f"{name} shows something else than {there!r}, which is there"
                told = there if name in self.disputed else self.mine.get(name, there)
                assert told == there, f"{name}: told {told!r}, and the remote has {there!r}"
        except BaseException as error:  # noqa: BLE001 - told by the rule that waits for this
            self.broken = error

    @invariant()
    def nobody_is_replaced_unseen(self) -> None:
        for effect in self.remote.effects[self.effects :]:
            if effect.ours and effect.before is not None and effect.content != effect.before:
                assert effect.before in self.known | self.written, f"{effect} replaced what nobody here had seen"
        self.effects = len(self.remote.effects)

    @invariant()
    def nothing_is_lost(self) -> None:
        self.loop.call(self._nothing_is_lost)

    async def _nothing_is_lost(self) -> None:
        if self.life is not None and not self.life.crash.dead:
            lacking = self.written - self._held(self.life) - self.given_up
            assert not lacking, f"lost: {lacking}"

    def _held(self, life: Life) -> set[bytes]:
        """Every content that is somewhere; what they took the place of is given up."""
        held = {stored.content for stored in self.remote.files.values()} | life.kept()
        for above in DIRECTORIES:
            temporaries = life.plain_journal.nodes_in(RemotePath(above))
            held |= {content for node in temporaries if (content := life.content(node.body)) is not None}
        self.given_up |= {self.replaced[content] for content in held & self.replaced.keys()}
        return held


TestMachine = FilesystemMachine.TestCase
TestMachine.settings = settings(
    deadline=None, max_examples=EXAMPLES, stateful_step_count=40, suppress_health_check=list(HealthCheck)
)
