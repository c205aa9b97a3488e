"""What is attached to a file, kept over a write to a server that keeps only what the write carries.

relayfile's Go server keeps a file's semantics where a write brings none. Servers built on its TypeScript core keep
nothing then, and a save would take the file's permissions away. They are known by listings without digests, and no
bulk can carry anything. Invariant: what was attached at the base of a write is attached after it.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio

from fsmount.errors import RemoteError
from fsmount.model import parent_of
from fsmount.ports import Upload
from fsmount.remote.features import Features
from fsmount.remote.files import FileRoutes
from fsmount.remote.trees import Trees
from fsmount.wire.relayfile import Semantics

AT_ONCE = 8


class Attached:
    """Says what a write must carry. Every method is a checkpoint."""

    def __init__(self, trees: Trees, files: FileRoutes, features: Features) -> None:
        self._trees = trees
        self._files = files
        self._features = features

    async def of(self, upload: Upload) -> Semantics | None:
        """None where the server sees to it itself, or nothing is attached. Raises RemoteError.

        What changes after this look has another revision, so that the write is refused.
        """
        if upload.base.revision is None or await self._is_kept(upload):
            return None
        semantics = await self._files.semantics(upload.path)
        return None if semantics == Semantics() else semantics

    async def of_each(self, uploads: Sequence[Upload]) -> list[Semantics | RemoteError | None]:
        """The same of several, with the error of a look that failed in its place."""
        found: list[Semantics | RemoteError | None] = [None] * len(uploads)
        limit = trio.CapacityLimiter(AT_ONCE)

        async def look(place: int, upload: Upload) -> None:
            async with limit:
                try:
                    found[place] = await self.of(upload)
                except RemoteError as error:
                    found[place] = error

        async with trio.open_nursery() as nursery:
            for place, upload in enumerate(uploads):
                nursery.start_soon(look, place, upload)
        return found

    async def _is_kept(self, upload: Upload) -> bool:
        if self._features.any:
            return True
        if self._trees.tells_digests is None:
            await self._trees.page(parent_of(upload.path))
        return self._trees.tells_digests is not False
