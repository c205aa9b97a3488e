"""What a disk may hold after the power failed, reckoned from what was done to it.

A change is durable once an fsync that began after it has ended: of the file for its bytes, of a directory for the names
in it (fsync(2)). Of the others any subset may have reached the disk, in any order, a write page by page; a rename is
whole or not at all. That is more than any one filesystem does, and all that POSIX forbids is left out.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.strace import ROOT, Event

PAGE = 4096
NAMES = ("enter", "leave", "move")
BYTES = ("write", "cut")


@dataclass(frozen=True)
class Outage:
    """The power failed after ``at`` events; of the pending ones those in ``kept`` reached the disk."""

    at: int
    kept: frozenset[int]
    torn: int | None = None
    """Seed by which the kept writes lost some of their pages."""


class Disk:
    """All outages of one recording."""

    def __init__(self, events: Sequence[Event]) -> None:
        self.events = events
        self._durable_from = _durable_from(events)

    def durable(self, number: int, at: int) -> bool:
        """Whether every disk has that change after ``at`` events."""
        return self._durable_from.get(number, at) < at

    def pending(self, at: int) -> list[int]:
        """The changes that a disk may have or not have then."""
        return [
            number
            for number, event in enumerate(self.events[:at])
            if event.kind in NAMES + BYTES and not self.durable(number, at)
        ]

    def outages(self, at: int, chance: random.Random, *, singles: int, samples: int) -> Iterator[Outage]:
        """The plain cases (nothing, all, only names, only bytes of what is pending), the newest changes missing or
        arriving alone, and samples of the rest.
        """
        pending = self.pending(at)
        all_of = frozenset(pending)
        names = frozenset(number for number in pending if self.events[number].kind in NAMES)
        for kept in (frozenset[int](), all_of, names, all_of - names):
            yield Outage(at, kept)
        for one in pending[-singles:] if singles else ():
            yield Outage(at, all_of - {one})
            yield Outage(at, frozenset({one}))
        for _ in range(samples):
            share = chance.random()
            kept = frozenset(number for number in pending if chance.random() < share)
            yield Outage(at, kept, torn=chance.getrandbits(32) if chance.random() < 0.5 else None)
            yield Outage(at, frozenset(pending[: chance.randrange(len(pending) + 1)]))

    def write(self, outage: Outage, to: Path) -> None:
        """Makes ``to`` what the disk holds then."""
        names: dict[int, dict[str, int]] = {ROOT: {}}
        content: dict[int, bytearray] = {}
        torn = None if outage.torn is None else random.Random(outage.torn)
        for number, event in enumerate(self.events[: outage.at]):
            if self.durable(number, outage.at):
                _apply(event, names, content, None)
            elif number in outage.kept:
                _apply(event, names, content, torn)
        _materialise(ROOT, names, content, to)


def _durable_from(events: Sequence[Event]) -> dict[int, int]:
    """For each change that an fsync covered, the number of the first that did."""
    waiting: dict[int, list[int]] = {}
    found: dict[int, int] = {}
    for number, event in enumerate(events):
        if event.kind in BYTES:
            waiting.setdefault(event.inode, []).append(number)
        elif event.kind in NAMES:
            for directory in {event.directory, event.to_directory} - {-1}:
                waiting.setdefault(directory, []).append(number)
        elif event.kind == "sync":
            changes = waiting.pop(event.inode, [])
            waiting[event.inode] = [change for change in changes if change >= event.began]
            for change in changes:
                if change < event.began:
                    found.setdefault(change, number)
    return found


def _apply(
    event: Event, names: dict[int, dict[str, int]], content: dict[int, bytearray], torn: random.Random | None
) -> None:
    if event.kind in BYTES:
        _put(event, content.setdefault(event.inode, bytearray()), torn)
        return
    if event.kind == "enter":
        names.setdefault(event.directory, {})[event.name] = event.inode
        (names if event.is_directory else content).setdefault(event.inode, {} if event.is_directory else bytearray())  # type: ignore[arg-type]
        return
    before = names.setdefault(event.directory, {})
    if before.get(event.name) == event.inode:
        del before[event.name]
    if event.kind == "move":
        names.setdefault(event.to_directory, {})[event.to_name] = event.inode


def _put(event: Event, file: bytearray, torn: random.Random | None) -> None:
    end = event.offset + len(event.content)
    if event.kind == "cut" and end < len(file):
        del file[end:]
    file.extend(bytes(max(0, end - len(file))))
    at = event.offset
    while at < end:
        stop = min(end, at // PAGE * PAGE + PAGE)
        if torn is None or torn.random() < 0.5:
            file[at:stop] = event.content[at - event.offset : stop - event.offset]
        at = stop


def _materialise(inode: int, names: dict[int, dict[str, int]], content: dict[int, bytearray], to: Path) -> None:
    to.mkdir(mode=0o700)
    for name, child in names.get(inode, {}).items():
        if child in names:
            _materialise(child, names, content, to / name)
        else:
            (to / name).write_bytes(content.get(child, b""))
