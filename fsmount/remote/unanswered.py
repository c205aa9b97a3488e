"""Files of a batch on which the accepting answer was silent, as relayfile's hosted server is on all of them.

Invariant: a file gets a receipt only where the remote was seen to hold its bytes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import trio

from fsmount.errors import InvalidAnswer, RemoteError
from fsmount.model import Chunk, Entry, Receipt, RemotePath, name_of, parent_of
from fsmount.ports import Upload
from fsmount.remote.batch import Verdicts

AT_ONCE = 8
Listings = Callable[[RemotePath], Awaitable[list[Entry]]]
Read = Callable[[RemotePath, int, int], Awaitable[Chunk]]


class Unanswered:
    """Asks the remote what it has of them: a listing a directory, and each file whose digest no listing tells."""

    def __init__(self, listing: Listings, read: Read) -> None:
        self._listing = listing
        self._read = read

    async def looked_up(
        self, uploads: Sequence[Upload], found: Verdicts, correlation_id: str
    ) -> list[Receipt | RemoteError]:
        """The verdicts with those that were missing. A checkpoint where one was."""
        settled = dict(enumerate(found))
        listed: dict[RemotePath, dict[str, Entry] | RemoteError] = {}
        limit = trio.CapacityLimiter(AT_ONCE)

        async def settle(place: int, upload: Upload) -> None:
            async with limit:
                settled[place] = await self._verdict(upload, listed[parent_of(upload.path)], correlation_id)

        async with trio.open_nursery() as nursery:
            for place, upload in enumerate(uploads):
                if found[place] is None:
                    parent = parent_of(upload.path)
                    if parent not in listed:
                        listed[parent] = await self._listed(parent)
                    nursery.start_soon(settle, place, upload)
        return [verdict for verdict in settled.values() if verdict is not None]

    async def _listed(self, directory: RemotePath) -> dict[str, Entry] | RemoteError:
        try:
            return {name_of(entry.path): entry for entry in await self._listing(directory)}
        except RemoteError as error:
            return error

    async def _verdict(
        self, upload: Upload, listed: dict[str, Entry] | RemoteError, correlation_id: str
    ) -> Receipt | RemoteError:
        if isinstance(listed, RemoteError):
            return listed
        try:
            entry = await self._known(upload, listed.get(name_of(upload.path)))
        except RemoteError as error:
            return error
        if entry is None or entry.revision is None or entry.digest != upload.digest:
            return InvalidAnswer("the batch was accepted, but not a word on this file", correlation_id=correlation_id)
        return Receipt(path=upload.path, revision=entry.revision, digest=upload.digest, correlation_id=correlation_id)

    async def _known(self, upload: Upload, entry: Entry | None) -> Entry | None:
        """The entry with its digest, which a server that lists none tells by the content."""
        if entry is None or entry.digest is not None:
            return entry
        chunk = await self._read(upload.path, 0, max(1, upload.source.size))
        return Entry(path=upload.path, kind=entry.kind, revision=chunk.revision, digest=chunk.digest)
