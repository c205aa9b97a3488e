"""The remote in memory, with a script of faults, and a record of what came of every request."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from msgspec import Struct

from fsmount.errors import InvalidAnswer, Refusal, RemoteError, Unreachable
from fsmount.model import Base, Receipt, RemotePath, Revision
from fsmount.ports import Upload
from tests.support.fake_remote import FULL, FakeRemote, Fault, StoredFile


class Effect(Struct, frozen=True):
    """One change of the remote. ``content`` is None for a removal; ``before`` is what went by it; ``ours``: by us."""

    path: RemotePath
    content: bytes | None
    before: bytes | None
    ours: bool


class FaultyRemote(FakeRemote):
    """See FakeRemote; ``script`` is in force from the first call. ``effects`` are all changes, in their order."""

    def __init__(self, script: Iterable[Fault] = (), *, now: Callable[[], float]) -> None:
        super().__init__(FULL, now=now)
        self.faults = list(script)
        self.effects: list[Effect] = []
        self.contents: dict[Revision, bytes] = {}
        """Of every revision that ever was."""
        self._ours = False

    def _store(self, path: RemotePath, content: bytes, content_type: str, metadata: tuple[str, ...]) -> StoredFile:
        self.effects.append(Effect(path, content, self.content(path), self._ours))
        stored = super()._store(path, content, content_type, metadata)
        self.contents[stored.revision] = content
        return stored

    def remove(self, path: str) -> None:
        self.effects.append(Effect(RemotePath(path), None, self.content(path), self._ours))
        super().remove(path)

    def _put(self, upload: Upload, metadata: tuple[str, ...] | None = None) -> Receipt:
        self._ours = True
        try:
            return super()._put(upload, metadata)
        finally:
            self._ours = False

    def _delete(self, path: RemotePath, base: Base) -> Receipt:
        self._ours = True
        try:
            return super()._delete(path, base)
        finally:
            self._ours = False

    @property
    def struck(self) -> int:
        """How many calls a fault hit."""
        return sum(max(0, min(fault.seen, fault.nth + fault.times - 1) - fault.nth + 1) for fault in self.faults)


def lost(method: str, nth: int = 1, times: int = 1) -> Fault:
    """It takes effect, and no answer comes."""
    return Fault(method=method, nth=nth, times=times, error=lambda: Unreachable("the answer was lost"), applied=True)


def cut(method: str, nth: int = 1, times: int = 1) -> Fault:
    """It takes effect, and the answer's body ends in the middle."""
    return Fault(
        method=method, nth=nth, times=times, error=lambda: InvalidAnswer("the body ends in the middle"), applied=True
    )


def refused(status: int, method: str, nth: int = 1, times: int = 1) -> Fault:
    """Not done: the answer has that status."""
    return _failing(method, lambda: Refusal(status, message="no"), nth, times)


def unanswered(method: str, nth: int = 1, times: int = 1) -> Fault:
    """Not done, and no answer comes, as after a timeout."""
    return _failing(method, lambda: Unreachable("no answer", timed_out=True), nth, times)


def _failing(method: str, error: Callable[[], RemoteError], nth: int, times: int) -> Fault:
    return Fault(method=method, nth=nth, times=times, error=error)
