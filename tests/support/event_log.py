"""An event log that only remembers."""

from __future__ import annotations

from msgspec import Struct

from fsmount.model import OpId, RemotePath


class Noted(Struct, frozen=True, kw_only=True):
    event: str
    message: str
    op: OpId | None
    path: RemotePath | None
    level: str


class RememberedLog:
    """``lines`` in the order they were noted."""

    def __init__(self) -> None:
        self.lines: list[Noted] = []

    def note(
        self,
        event: str,
        message: str = "",
        *,
        op: OpId | None = None,
        path: RemotePath | None = None,
        level: str = "info",
    ) -> None:
        self.lines.append(Noted(event=event, message=message, op=op, path=path, level=level))

    def of(self, event: str) -> list[Noted]:
        return [line for line in self.lines if line.event == event]
