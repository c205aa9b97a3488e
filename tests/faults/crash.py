"""A daemon that dies at a chosen point, and ports that tell where it stands.

There is a point after every call of a port that changes what outlives the process: journal, spool, remote. Between two
of them nothing lasting happens, and within a transaction neither: so these are all the moments at which ``kill -9``
makes a difference.

Invariant: a daemon that was killed does nothing more: whatever its ``finally`` blocks try raises ``Killed`` again.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

JOURNAL = frozenset({
    "begin_draft", "move_draft", "adopt_draft", "put", "touch_draft", "end_draft", "delete", "rename", "rename_nodes",
    "rmdir", "cancel_rmdir", "durable", "claim", "sealed", "acknowledge", "step", "postpone", "rebase",
    "bury", "expedite", "hurry", "keep_theirs", "retry", "force", "discard", "purge", "accept_theirs", "keep_setting",
    "keep", "forget", "keep_xattr", "recover",
})  # fmt: skip
SPOOL = frozenset({"create", "seal", "sync", "remove", "sweep", "write", "truncate"})
REMOTE = frozenset({"put", "put_many", "delete", "copy_metadata", "remove_directory"})


class Killed(BaseException):
    """``kill -9``: no handler of the daemon catches it."""


class CrashAt:
    """Dies at the ``point``-th point from now on; None: never. ``passed`` are the points that went by."""

    def __init__(self, point: int | None = None) -> None:
        self.point = point
        self.passed: list[str] = []
        self.dead = False
        self.depth = 0
        """Transactions that are open: what is within is lasting at their end."""

    def check(self) -> None:
        """Raises Killed if the daemon is dead."""
        if self.dead:
            raise Killed

    def reach(self, name: str) -> None:
        """The daemon stands at a point; raises Killed if that is the one, or if it is dead already."""
        self.check()
        if self.depth:
            return
        self.passed.append(name)
        if self.point == len(self.passed):
            self.dead = True
            raise Killed

    def kill(self) -> None:
        """Dies here."""
        self.dead = True


class Watched:
    """A port whose calls named in ``calls`` have a point after them; everything else is the port's own."""

    def __init__(self, port: object, crash: CrashAt, calls: frozenset[str]) -> None:
        self._port = port
        self._crash = crash
        self._calls = calls

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._port, name)
        if name == "transaction":
            return lambda: self._transaction(found())
        if name not in self._calls:
            return found
        return self._awaited(name, found) if inspect.iscoroutinefunction(found) else self._called(name, found)

    def _called(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: object, **kwargs: object) -> object:
            self._crash.check()
            result = call(*args, **kwargs)
            self._crash.reach(name)
            return Watched(result, self._crash, SPOOL) if name == "create" else result

        return watched

    def _awaited(self, name: str, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def watched(*args: object, **kwargs: object) -> object:
            self._crash.check()
            result = await call(*args, **kwargs)
            self._crash.reach(name)
            return result

        return watched

    @contextmanager
    def _transaction(self, transaction: AbstractContextManager[None]) -> Iterator[None]:
        self._crash.check()
        self._crash.depth += 1
        try:
            with transaction:
                yield
                self._crash.check()
        finally:
            self._crash.depth -= 1
        self._crash.reach("transaction")
