"""What programs and persons do, step by step, with what must show after each step.

A view is what a program sees: path to content, without the names at which nothing stands. ``said`` is the view that the
daemon has promised so far; ``meant`` the one after the step that is under way.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio
from msgspec import Struct

from fsmount.errors import Refusal
from fsmount.model import Reason, RemotePath, State
from tests.faults.life import Life
from tests.faults.remote import FaultyRemote

View = dict[str, bytes]
Do = Callable[[Life, "Stage"], Awaitable[None]]


class Stage:
    """What is true so far, whatever daemon lives now."""

    def __init__(self, remote: FaultyRemote) -> None:
        self.remote = remote
        self.said: View = {path: content for path in remote.files if (content := remote.content(path)) is not None}
        self.meant: View = dict(self.said)
        self.writes: dict[str, list[bytes]] = {path: [content] for path, content in self.said.items()}
        """Every content that a path was given, in the program's order."""
        self.acknowledged = 0

    def plan(self, view: View) -> None:
        self.meant = view
        for path, content in view.items():
            if self.said.get(path) != content:
                self.writes.setdefault(path, []).append(content)

    def acknowledge(self) -> None:
        """The system call has returned 0."""
        self.acknowledged += self.said != self.meant
        self.said = self.meant


class Step(Struct, frozen=True):
    """``after`` gives the view once it is done."""

    do: Do
    after: Callable[[View], View] = dict
    """Copies: nothing changes for programs."""


def save(path: str, content: bytes) -> Step:
    async def do(life: Life, stage: Stage) -> None:
        number = await life.create(path)
        await life.write(number, content)
        await life.flush(number)
        stage.acknowledge()
        await life.release(number)

    return Step(do, lambda view: {**view, path: content})


def append(path: str, more: bytes) -> Step:
    async def do(life: Life, stage: Stage) -> None:
        size = len(stage.said[path])
        number = await life.create(path, truncate=False)
        await life.write(number, more, at=size)
        await life.flush(number)
        stage.acknowledge()
        await life.release(number)

    return Step(do, lambda view: {**view, path: view[path] + more})


def truncate(path: str, size: int) -> Step:
    return Step(lambda life, _: life.truncate(path, size), lambda view: {**view, path: view[path][:size]})


def remove(path: str) -> Step:
    return Step(lambda life, _: life.unlink(path), lambda view: _without(view, path))


def rename(old: str, new: str) -> Step:
    def after(view: View) -> View:
        return {**_without(view, old), new: view[old]}

    return Step(lambda life, _: life.rename(old, new), after)


def rename_directory(old: str, new: str) -> Step:
    def after(view: View) -> View:
        return {new + path.removeprefix(old) if path.startswith(old + "/") else path: view[path] for path in view}

    return Step(lambda life, _: life.rename(old, new), after)


def mkdir(path: str) -> Step:
    return Step(lambda life, _: life.mkdir(path))


def rmdir(path: str) -> Step:
    return Step(lambda life, _: life.rmdir(path))


def wait(seconds: float) -> Step:
    async def do(_: Life, __: Stage) -> None:
        await trio.sleep(seconds)

    return Step(do)


def foreign(path: str, content: bytes) -> Step:
    """Somebody else writes; the mount has not heard of it."""

    async def do(_: Life, stage: Stage) -> None:
        stage.remote.write(path, content)

    return Step(do)


def refuse(path: str, status: int = 422) -> Step:
    """The next put of that name is refused."""

    async def do(_: Life, stage: Stage) -> None:
        stage.remote.fail("put", Refusal(status, message="no"), path=RemotePath(path))

    return Step(do)


def drained() -> Step:
    """Until nothing moves by itself any more."""
    return Step(lambda life, _: come_to_rest(life))


def decide(verb: str, state: State, reason: Reason | None = None) -> Step:
    """``retry``, ``force`` or ``discard`` of all ops in that state."""

    async def do(life: Life, _: Stage) -> None:
        for record in life.records(state):
            if reason is None or record.reason is reason:
                getattr(life.decisions, verb)(record.op.op_id)

    return Step(do)


def giving_up(path: str, shows: bytes | None) -> Step:
    """The ops of that path are discarded; what shows then."""

    async def do(life: Life, _: Stage) -> None:
        for record in life.records(State.PENDING, State.HELD, State.DEAD):
            if path in {record.op.path, record.op.target}:
                life.decisions.discard(record.op.op_id)

    return Step(do, lambda view: _without(view, path) | ({} if shows is None else {path: shows}))


async def come_to_rest(life: Life, within: float = 900.0) -> None:
    """Waits until every op is delivered, dead, held or blocked; fails where one is undue for ever."""
    with trio.move_on_after(within):
        while any(record.blocked_by is None for record in life.records(State.PENDING, State.SENDING)):
            await trio.sleep(0.2)
        return
    raise AssertionError(f"not at rest after {within} s: {life.records(State.PENDING, State.SENDING)}")


def _without(view: View, path: str) -> View:
    return {name: content for name, content in view.items() if name != path}
