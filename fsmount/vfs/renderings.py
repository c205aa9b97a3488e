"""The bytes that a virtual file shows, shared by everybody who looks at one moment.

Invariant: size, time and bytes of a file come from one rendering. A rendering is replaced only when nobody reads it and
it is older than a second, than the last change made through this mount, or, by a tenth of a second, than the journal;
whoever opened it reads it to its end. So what a script asks after ``fsmount wait`` is what has become of its writes.
(``lookup``, ``getattr`` and ``open`` are separate requests: rendering at each of them makes ``tar`` see a file change.)
"""

from __future__ import annotations

from collections.abc import Callable

from fsmount.model import Ino
from fsmount.ports import Clock, Facts
from fsmount.status import Snapshot, snapshot

FRESH = 1.0
OVERTAKEN = 0.1
"""Seconds for which a rendering stands although the queue has moved on: longer than from a lookup to its open."""
_SWEPT_ABOVE = 512


class Age:
    """When something was made: seconds on the monotonic clock, after how many changes, at which journal."""

    __slots__ = ("changes", "made", "version")

    def __init__(self, made: float, changes: int, version: int) -> None:
        self.made = made
        self.changes = changes
        self.version = version


class Rendering:
    """One file's bytes; ``at`` is its mtime and ctime, ``readers`` the handles that are open on it."""

    __slots__ = ("age", "at", "content", "readers")

    def __init__(self, content: bytes, at: float, age: Age) -> None:
        self.content = content
        self.at = at
        self.age = age
        self.readers = 0


class Renderings:
    """The current rendering of each virtual file, and the Snapshot that those of one moment share."""

    def __init__(self, facts: Facts, clock: Clock) -> None:
        self._facts = facts
        self._clock = clock
        self._changes = 0
        self._files: dict[Ino, Rendering] = {}
        self._moment: tuple[Snapshot, Age] | None = None
        self._swept_above = _SWEPT_ABOVE

    def changed(self) -> None:
        """A program changed something through this mount: what nobody reads is rendered anew when next asked for."""
        self._changes += 1

    def of_snapshot(self, ino: Ino, render: Callable[[Snapshot], bytes]) -> Rendering:
        """The current rendering of a file that shows the Snapshot."""
        held = self._current(ino)
        if held is not None:
            return held
        if self._moment is None or not self._is_fresh(self._moment[1]):
            self._moment = (snapshot(self._facts), self._now())
        shown, age = self._moment
        return self._keep(ino, Rendering(render(shown), shown.beside.at, age))

    def of_op(self, ino: Ino, render: Callable[[], bytes]) -> Rendering:
        """The current rendering of a file that shows one op."""
        return self._current(ino) or self._keep(ino, Rendering(render(), self._clock.now(), self._now()))

    def read(self, ino: Ino) -> Rendering | None:
        """The rendering that somebody has open, whatever became of the file meanwhile."""
        found = self._files.get(ino)
        return found if found is not None and found.readers else None

    def _current(self, ino: Ino) -> Rendering | None:
        found = self._files.get(ino)
        return found if found is not None and (found.readers or self._is_fresh(found.age)) else None

    def _keep(self, ino: Ino, rendering: Rendering) -> Rendering:
        if len(self._files) >= self._swept_above:
            self._files = {key: old for key, old in self._files.items() if old.readers or self._is_fresh(old.age)}
            self._swept_above = _SWEPT_ABOVE + 2 * len(self._files)
        self._files[ino] = rendering
        return rendering

    def _now(self) -> Age:
        return Age(self._clock.monotonic(), self._changes, self._facts.journal.version())

    def _is_fresh(self, age: Age) -> bool:
        lasts = FRESH if age.version == self._facts.journal.version() else OVERTAKEN
        return age.changes == self._changes and self._clock.monotonic() - age.made <= lasts
