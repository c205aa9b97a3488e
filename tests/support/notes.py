"""An event log that a test can read."""

from __future__ import annotations

from msgspec import Struct

from fsmount.model import OpId, RemotePath
from fsmount.ports import Details


class Note(Struct, frozen=True):
    event: str
    message: str
    path: RemotePath | None
    level: str
    op: OpId | None = None
    details: Details | None = None


class Notes:
    """A ``ports.EventLog`` in memory."""

    def __init__(self) -> None:
        self.all: list[Note] = []

    def note(
        self,
        event: str,
        message: str = "",
        *,
        op: OpId | None = None,
        path: RemotePath | None = None,
        level: str = "info",
        details: Details | None = None,
    ) -> None:
        self.all.append(Note(event, message, path, level, op, details))

    def of(self, event: str) -> list[Note]:
        return [note for note in self.all if note.event == event]
