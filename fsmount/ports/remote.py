"""The service that owns the files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from msgspec import Struct

from fsmount.errors import RemoteError
from fsmount.model import (
    Base,
    Capabilities,
    Chunk,
    Digest,
    Entry,
    Feed,
    ProviderResult,
    Receipt,
    RemotePath,
    Revision,
    Told,
)
from fsmount.ports.stores import Source


class Upload(Struct, frozen=True, kw_only=True):
    """One file to put: ``key`` makes a repeated request recognisable; it covers op, path, base, digest and redrive."""

    path: RemotePath
    base: Base
    source: Source
    digest: Digest
    content_type: str
    """Empty where the name tells nothing: then the bytes decide."""
    key: str


class Remote(Protocol):
    """The service that owns the files. Every method raises RemoteError's subclasses and nothing else of the network.

    No method retries, save once with a fresh credential after a 401.
    """

    @property
    def capabilities(self) -> Capabilities: ...

    def may_write(self, path: RemotePath | None = None) -> bool:
        """Whether the credential says that it may write ``path``, or, without one, anything; the remote decides.

        True where it says nothing. Never waits.
        """
        ...

    def writable(self) -> tuple[str, ...] | None:
        """The paths that the credential says it may write, with ``*`` and ``**`` as the remote has them.

        None: every path, or it does not say. Never waits.
        """
        ...

    async def probe(self) -> None:
        """One small read with the credential; returns when the remote answers it with 2xx. Learns the capabilities."""

    async def listing(self, directory: RemotePath) -> list[Entry]:
        """All direct children, however many pages; empty where there is no such directory."""

    async def read(self, path: RemotePath, revision: Revision | None, start: int, length: int) -> Chunk:
        """At least bytes ``start`` … ``start+length`` as far as they exist, at whatever revision the remote has now.

        A remote without ``ranges`` answers with the whole file. The caller compares the revision with what it wanted.
        """

    async def read_below(self, directory: RemotePath, most: int) -> list[tuple[RemotePath, Chunk]] | None:
        """Every file below ``directory``, each whole, in one request; None where they hold more than ``most`` bytes.

        Only of a remote with ``batch_read``, which may turn out not to have it.
        """

    async def put(self, upload: Upload) -> Receipt:
        """Creates or replaces one file if it still stands at ``upload.base``."""

    async def put_many(self, uploads: Sequence[Upload]) -> list[Receipt | RemoteError]:
        """The same for several files in one request, each with its own verdict, in the order given.

        Raises only when the request as a whole failed, which is the verdict of no file.
        """

    async def delete(self, path: RemotePath, base: Base) -> Receipt:
        """Removes one file if it still stands at ``base``."""

    async def copy_metadata(self, upload: Upload, source: RemotePath, revision: Revision | None) -> Receipt:
        """As ``put``, carrying over what the remote keeps beside ``source``'s content (permissions, properties)."""

    async def remove_directory(self, path: RemotePath) -> None:
        """Removes an empty directory; raises Refusal 409 ``not_empty`` where anything lies in it."""

    async def follow(self, told: Callable[[Told | None], None], going: Callable[[Feed], None]) -> None:
        """The change feed from now on, until it fails by raising RemoteError; the next call goes on where it stopped.

        ``told`` is called with each change; ``None`` says that some may have been missed. ``going`` is called with the
        way in which changes come now, whenever it changes or the remote was heard from. Neither may block. One call at
        a time.
        """

    async def provider_result(self, remote_op_id: str) -> ProviderResult:
        """What became of an accepted write behind the remote; Refusal 403 or 404 where that cannot be asked."""
        ...

    async def failed_at_provider(self) -> list[ProviderResult]:
        """The accepted writes that a provider gave up on, the newest first, of however many there are."""
        ...

    async def replay(self, remote_op_id: str) -> None:
        """Has the remote try a failed one again; Refusal 409 where it is not failed (any more)."""

    def credential_changed(self) -> bool:
        """Reads the credential again; whether it differs from the one that was refused last. Never raises."""
        ...

    async def aclose(self) -> None: ...
