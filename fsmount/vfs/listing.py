"""One directory's listing, and a request for one that is under way.

Invariant: what is ``suspect``, or was touched while the request was under way, is not told from them as current.
"""

from __future__ import annotations

import trio

from fsmount.errors import RemoteError
from fsmount.model import Entry, Kind


class Listing:
    """One directory: its names, when (monotonic) the remote last confirmed them, until when they are taken to be
    current, which names are ``suspect`` because something changed there since, and which of them may have gone.
    """

    __slots__ = ("confirmed_at", "doubtful", "entries", "expires", "suspect")

    def __init__(self, entries: dict[str, Entry], confirmed_at: float, expires: float) -> None:
        self.entries = entries
        self.confirmed_at = confirmed_at
        self.expires = expires
        self.doubtful: set[str] = set()
        self.suspect: set[str] = set()

    def is_current(self, name: str | None, now: float) -> bool:
        """Whether it tells what stands under ``name`` (None: under all names)."""
        if self.expires <= now:
            return False
        return name not in self.suspect if name is not None else not self.suspect

    def is_outdated(self, name: str) -> bool:
        """Whether something is known to have changed under the name: it is not only old."""
        return name in self.suspect or self.expires <= self.confirmed_at


NOTHING = Listing({}, 0.0, 0.0)
"""The listing of a directory of which nothing is known."""


class Request:
    """A listing under way, its waiters, and what happened meanwhile: ops of ours on the ``touched`` names (``learned``
    is what we delivered or removed), changes that were reported of the ``changed`` ones, or anything anywhere
    (``outdated``).
    """

    __slots__ = ("answer", "changed", "done", "error", "learned", "outdated", "touched")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.answer: Listing | None = None
        self.error: RemoteError | None = None
        self.touched: set[str] = set()
        self.learned: dict[str, Entry | None] = {}
        self.changed: set[str] = set()
        self.outdated = False

    def is_outdated(self, name: str | None) -> bool:
        """Whether its answer may be older than what is known of ``name`` (None: of any name)."""
        return self.outdated or (bool(self.changed) if name is None else name in self.changed)


def is_file(entry: Entry | None) -> bool:
    """Whether there is one, and it is a file's."""
    return entry is not None and entry.kind is Kind.FILE


def files_in(listing: Listing | None) -> int:
    """How many; of nothing none."""
    return 0 if listing is None else sum(map(is_file, listing.entries.values()))
