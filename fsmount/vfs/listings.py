"""What the remote holds, a directory at a time, as far as it was asked.

Invariant: one listing request a directory, whoever waits for it. An answer is not applied to a path on which an op was
queued, sent or acknowledged since the request began; that directory is asked again at the next look there. Whoever asks
gets an answer to a request that began after the changes that were known by then. A listing that has expired is served
only while the remote cannot be reached.

A change that is reported outdates one name of a listing, not the others: under a stream of changes in a large directory
what did not change is current.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import trio

from fsmount.connection import Connection
from fsmount.errors import RemoteError, Unreachable
from fsmount.model import ROOT, ConnectionState, Entry, Feed, Kind, RemotePath, ancestors, is_below, name_of, parent_of
from fsmount.ports import Clock, KnownListings, Remote
from fsmount.vfs.listing import Listing, Request, files_in, is_file

MAX_ENTRIES = 400_000
"""Entries held in memory; whole directories that were not looked at for longest go first."""

KEEP = 3.0
"""Seconds that a listing may change before it is written down."""
BURST = 60.0
"""Seconds in which deletes count together."""
SMALL = 10
"""Half of a tree of which nobody minds so few."""


class Listings:
    """The remote's side of the tree. ``ttl`` seconds without a change feed; with one, until it reports a change.

    ``patience`` seconds of silence are enough to serve an expired listing instead, also one of a former run, which
    ``known`` has.
    """

    def __init__(
        self,
        remote: Remote,
        connection: Connection,
        clock: Clock,
        ttl: float,
        patience: float,
        known: KnownListings | None = None,
    ) -> None:
        self._known = known
        self._unkept: set[RemotePath] = set()
        self._to_keep = trio.Event()
        self._remote = remote
        self._connection = connection
        self._clock = clock
        self._ttl = ttl
        self._patience = patience
        self._held: OrderedDict[RemotePath, Listing] = OrderedDict()
        self._entries = 0
        self._files = 0
        self._files_before = 0
        self._braked_at = float("-inf")
        self._under_way: dict[RemotePath, Request] = {}
        self.changes = 0
        """Grows with every change of what is held."""

    # asking

    def fresh(self, directory: RemotePath, name: str | None = None) -> Listing | None:
        """The listing if it is held and current, or is at least for ``name``: no request, no checkpoint."""
        listing = self._held.get(directory)
        if listing is not None and listing.is_current(name, self._clock.monotonic()):
            self._held.move_to_end(directory)
            return listing
        return None

    def current(self, directory: RemotePath, name: str | None = None) -> Listing | None:
        """The same; an empty one of a directory that a current listing above shows to be absent."""
        return self.fresh(directory, name) or self._known_absent(directory)

    def held(self, directory: RemotePath) -> Listing | None:
        """The listing even if it has expired."""
        return self._held.get(directory)

    async def directory(self, directory: RemotePath, name: str | None = None) -> Listing:
        """The listing, asked for where needed; an expired one while the remote is out of reach. A checkpoint.

        With ``name``, one that is current for that name. Raises RemoteError where nothing is held; at once while the
        mount knows that it is offline.
        """
        current = self.current(directory, name)
        if current is not None:
            return current
        old = self._held.get(directory)
        if self._connection.state is ConnectionState.OFFLINE:
            old = old or await self._remembered(directory)
            if old is None:
                raise Unreachable("the remote cannot be reached")
            return old
        if old is None and not self._remembers(directory):
            return await self._ask_anew(directory, name)
        with trio.move_on_after(self._patience):
            try:
                return await self._ask_anew(directory, name)
            except Unreachable:
                pass
            except RemoteError:
                # A refusal speaks against what only a former run has seen.
                if old is None:
                    raise
        old = old or await self._remembered(directory)
        if old is None:
            raise Unreachable("the remote does not answer", timed_out=True)
        return old

    def _remembers(self, directory: RemotePath) -> bool:
        """Whether ``_remembered`` may have something."""
        kept = self._known is not None and self._known.has(directory)
        return kept or self._was_absent(directory) is not None

    async def _remembered(self, directory: RemotePath) -> Listing | None:
        """Of a directory that was not listed: what a former run knew, or nothing of one that was not there when what
        is above it was listed, as one that was made here since. A checkpoint.
        """
        return await self._recalled(directory) or self._was_absent(directory)

    async def _recalled(self, directory: RemotePath) -> Listing | None:
        """What a former run knew of a directory that this one has not seen: expired, and as old as it is.

        A checkpoint; what came meanwhile is newer.
        """
        if self._known is None or not self._known.has(directory):
            return None
        found = await trio.to_thread.run_sync(self._known.recall, directory, abandon_on_cancel=True)
        held = self._held.get(directory)
        if found is None or held is not None:
            return held
        entries, at = found
        now = self._clock.monotonic()
        confirmed_at = now - max(0.0, self._clock.now() - at) - 1.0
        listing = Listing({name_of(entry.path): entry for entry in entries}, confirmed_at, now - 0.5)
        self._hold(directory, listing)
        self._unkept.discard(directory)
        return listing

    async def keep_known(self) -> None:
        """For ever: writes down what was learned, a while after."""
        while self._known is not None:
            await self._to_keep.wait()
            await trio.sleep(KEEP)
            listings = self._taken()
            await trio.to_thread.run_sync(self._known.keep, listings, self._clock.now())

    def keep_now(self) -> None:
        """At the end: what was not written down yet. Blocks."""
        if self._known is not None and self._unkept:
            self._known.keep(self._taken(), self._clock.now())

    def _taken(self) -> dict[RemotePath, list[Entry]]:
        taken, self._unkept = self._unkept, set()
        self._to_keep = trio.Event()
        return {name: list(self._held[name].entries.values()) for name in taken if name in self._held}

    def _note(self, directory: RemotePath) -> None:
        """What is held of the directory is not what was written down."""
        self._unkept.add(directory)
        self._to_keep.set()

    async def _ask_anew(self, directory: RemotePath, name: str | None) -> Listing:
        """A request that is under way serves if nothing is known to have changed since it began."""
        request = self._under_way.get(directory)
        late = request is not None and request.is_outdated(name)
        listing = await self._ask(directory)
        return listing if not late else self.fresh(directory, name) or await self._ask(directory)

    def _known_absent(self, directory: RemotePath) -> Listing | None:
        """Where a current listing above shows that there is no such directory: a new one costs no request."""
        return _absent(directory, self.fresh)

    def _was_absent(self, directory: RemotePath) -> Listing | None:
        """The same from listings that may have expired."""
        return _absent(directory, lambda above, _: self._held.get(above))

    async def _ask(self, directory: RemotePath) -> Listing:
        request = self._under_way.get(directory)
        if request is None:
            request = self._under_way[directory] = Request()
            try:
                request.answer = await self._fetch(directory, request)
            except RemoteError as error:
                request.error = error
                raise
            finally:
                del self._under_way[directory]
                request.done.set()
            return request.answer
        await request.done.wait()
        if request.answer is not None:
            return request.answer
        if request.error is not None:
            raise request.error.with_traceback(None)
        return await self._ask(directory)

    async def _fetch(self, directory: RemotePath, request: Request) -> Listing:
        try:
            found = await self._remote.listing(directory)
        except (Unreachable, trio.Cancelled):
            # Cancelled by the deadline of the system call: silence, as far as anybody can tell.
            self._connection.suspect()
            raise
        self._connection.contacted()
        entries = {name_of(entry.path): entry for entry in found}
        before = self._held.get(directory)
        for name in request.touched:
            known = request.learned.get(name) or (before.entries.get(name) if before is not None else None)
            if known is None:
                entries.pop(name, None)
            else:
                entries[name] = known
        now = self._clock.monotonic()
        listing = Listing(entries, now, now if request.outdated else self._expiry(now))
        listing.suspect = request.touched | request.changed
        self._hold(directory, listing)
        return listing

    def _expiry(self, now: float) -> float:
        return now + self._ttl if self._connection.feed is Feed.NONE else float("inf")

    def _hold(self, directory: RemotePath, listing: Listing) -> None:
        self.changes += 1
        before = self._held.pop(directory, None)
        self._entries += len(listing.entries) - (len(before.entries) if before is not None else 0)
        self._files += files_in(listing) - files_in(before)
        self._held[directory] = listing
        self._note(directory)
        while self._entries > MAX_ENTRIES and len(self._held) > 1:
            _, dropped = self._held.popitem(last=False)
            self._entries -= len(dropped.entries)
            self._files -= files_in(dropped)

    def brake(self, most: int) -> int:
        """How many deletes within a minute are too many: ``most``, or half of the files that were known when they began
        if that is less and more than ten.
        """
        now = self._clock.monotonic()
        self._files_before = max(self._files, self._files_before if now - self._braked_at < BURST else 0)
        self._braked_at = now
        half = self._files_before // 2
        return min(most, half) if half > SMALL else most

    @property
    def size_limit(self) -> int | None:
        """The longest file in bytes that the remote is known to take."""
        return self._remote.capabilities.size_limit

    def storable(self, name: str) -> bool:
        """Whether the remote can hold a file of that name."""
        return is_text(name) and not (self._remote.capabilities.trims_names and name != name.rstrip())

    # learning

    def touched(self, path: RemotePath) -> None:
        """An op on ``path`` was queued, sent or acknowledged: an answer under way says nothing of it."""
        request = self._under_way.get(parent_of(path))
        if request is not None:
            request.touched.add(name_of(path))

    def learn(self, path: RemotePath, entry: Entry | None) -> None:
        """Our own acknowledged change: the file at ``path`` is ``entry`` now, or gone."""
        self.touched(path)
        request = self._under_way.get(parent_of(path))
        if request is not None:
            # Where nothing is held yet, nobody else would tell of it when the answer comes.
            request.learned[name_of(path)] = entry
        for directory in ancestors(path)[:-1]:
            # Directories come and go with what lies in them, and the answer may have been made before.
            if parent_of(directory) in self._under_way:
                self._under_way[parent_of(directory)].changed.add(name_of(directory))
        self.changes += 1
        if entry is not None:
            self._directory_appears(parent_of(path))
        listing = self._held.get(parent_of(path))
        if listing is None:
            if entry is None:
                self._directory_may_vanish(parent_of(path))
            return
        before = listing.entries.pop(name_of(path), None)
        self._note(parent_of(path))
        if entry is not None:
            listing.entries[name_of(path)] = entry
        self._entries += (entry is not None) - (before is not None)
        self._files += is_file(entry) - is_file(before)
        if entry is None:
            self._directory_vanishes(parent_of(path), listing)

    def _directory_appears(self, directory: RemotePath) -> None:
        """Directories are implicit where the remote has none of its own: the first file below makes them."""
        self._hold_new(directory)
        while directory != ROOT:
            above = self._held.get(parent_of(directory))
            if above is None or name_of(directory) in above.entries:
                return
            above.entries[name_of(directory)] = Entry(path=directory, kind=Kind.DIRECTORY)
            self._entries += 1
            directory = parent_of(directory)

    def _hold_new(self, directory: RemotePath) -> None:
        """What was known to be absent holds what we put there and, until the feed says otherwise, nothing else."""
        while directory not in self._held and directory not in self._under_way:
            absent = self._known_absent(directory)
            if absent is None:
                return
            self._hold(directory, absent)
            directory = parent_of(directory)

    def _directory_may_vanish(self, directory: RemotePath) -> None:
        """What is left in it is not known: those who name it, or something above it, are asked again."""
        while directory != ROOT:
            above = self._held.get(parent_of(directory))
            if above is not None and name_of(directory) in above.entries:
                above.suspect.add(name_of(directory))
            directory = parent_of(directory)

    def _directory_vanishes(self, directory: RemotePath, listing: Listing) -> None:
        while directory != ROOT and not listing.entries and not self._remote.capabilities.directories:
            if not listing.is_current(None, self._clock.monotonic()):
                # Something else may have come into it meanwhile.
                self._directory_may_vanish(directory)
                return
            above = self._held.get(parent_of(directory))
            if above is None:
                return
            if above.entries.pop(name_of(directory), None) is not None:
                self._entries -= 1
            directory, listing = parent_of(directory), above

    def outdated(self, path: RemotePath, *, gone: bool = True) -> list[RemotePath]:
        """Something changed at ``path`` elsewhere: it, and the directories that may have come or gone with it, are
        asked for again.

        Returns ``path`` and the directories above it that may have come or, with ``gone``, vanished with it.
        """
        doubtful, now = [path], self._clock.monotonic()
        while True:
            directory, name = parent_of(doubtful[-1]), name_of(doubtful[-1])
            request = self._under_way.get(directory)
            if request is not None:
                request.changed.add(name)
            listing = self._held.get(directory)
            if listing is not None:
                listing.suspect.add(name)
                if gone and name in listing.entries:
                    listing.doubtful.add(name)
                # Of what has expired nothing may be left, and a newer listing above may say so.
                if listing.expires > now and len(listing.doubtful) < len(listing.entries):
                    return doubtful
            if directory == ROOT:
                return doubtful
            doubtful.append(directory)

    def expire(self, below: RemotePath = ROOT) -> None:
        """Changes may have been missed: everything is asked again that lies in the directory ``below`` or deeper."""
        for directory, listing in self._held.items():
            if directory == below or is_below(directory, below):
                listing.expires = 0.0
        for directory, request in self._under_way.items():
            if directory == below or is_below(directory, below):
                request.outdated = True

    def entry(self, path: RemotePath) -> Entry | None:
        """What is known of one path, current or not."""
        listing = self._held.get(parent_of(path))
        return None if listing is None else listing.entries.get(name_of(path))

    def renew(self) -> None:
        """The change feed stopped: what was current until a change was reported is current for ``ttl`` from now."""
        now = self._clock.monotonic()
        contact = self._connection.last_contact_at
        confirmed_at = now if contact is None else now - max(0.0, self._clock.now() - contact)
        for listing in self._held.values():
            if listing.expires > now:
                listing.confirmed_at = max(listing.confirmed_at, confirmed_at)
            listing.expires = min(listing.expires, now + self._ttl)


def is_text(name: str) -> bool:
    """Whether the bytes of the name are UTF-8: no other name can stand at a remote or in the journal."""
    return name.isascii() or not any("\ud800" <= character <= "\udfff" for character in name)


def _absent(directory: RemotePath, listing: Callable[[RemotePath, str], Listing | None]) -> Listing | None:
    """An empty listing of a directory that a ``listing`` above it shows to be absent, as old as that one."""
    while directory != ROOT:
        above = listing(parent_of(directory), name_of(directory))
        if above is not None:
            known = name_of(directory) in above.entries
            return None if known else Listing({}, above.confirmed_at, above.expires)
        directory = parent_of(directory)
    return None
