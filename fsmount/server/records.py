"""What goes into the store and comes out of it, and why a write or a listing may not; no behaviour."""

import msgspec


class RevisionMismatch(Exception):
    """The precondition did not hold; `current` is the file's revision, None when there is no file."""

    def __init__(self, current: str | None) -> None:
        super().__init__(current)
        self.current = current


class MarkerTooLong(Exception):
    """A marker of permission rules that has more bytes than are read of one."""


class UnknownCursor(Exception):
    """The row that the listing should go on after is not in it."""


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """A checked file on its way in. `size` is in bytes of `content` as stored, `byte_size` decoded.

    `semantics` is JSON text; None keeps what the file has. `content` is None where the bytes are a file in `bodies/`.
    """

    path: str
    content: str | None
    encoding: str
    content_type: str
    digest: str
    size: int
    byte_size: int
    semantics: str | None = None


class StoredFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file as it lies in the store; `content` is None where its bytes are a file in `bodies/`."""

    path: str
    revision: str
    content_type: str
    encoding: str
    digest: str
    byte_size: int
    updated_at: str
    semantics: str | None
    object_id: str | None
    content: str | None


class Inline(msgspec.Struct, frozen=True, kw_only=True):
    """What of a file goes along with its event."""

    content: str
    encoding: str
    content_type: str


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One row of a listing; a directory has only its path."""

    path: str
    revision: str | None
    encoding: str | None
    digest: str | None
    size: int | None
    byte_size: int | None
    updated_at: str | None
    semantics: str | None
    object_id: str | None
    content_type: str | None


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What a write became."""

    op_id: str
    path: str
    revision: str
    content_type: str | None


class StoredEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event; `number` orders them."""

    number: int
    type: str
    path: str
    revision: str
    digest: str | None
    origin: str
    provider: str
    correlation_id: str
    at: str
