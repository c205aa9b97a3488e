"""File bytes as relayfile's JSON carries them: text where they are text, else base64.

Invariant: what is encoded here decodes to the same bytes, and decoded bytes have the digest that came with them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re

from fsmount.errors import Refusal
from fsmount.model import Digest
from fsmount.ports import Source

SIZE_LIMIT = 48 * 1024 * 1024
"""Bytes of one file: whole files travel in one JSON body each way, and an answer is read as far as 64 MiB."""
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class BadContent(Exception):
    """The content is not what its encoding or its digest says."""


def encode(content: bytes) -> tuple[str, str | None]:
    """The content member and its encoding (None: UTF-8 text). Text has no control characters but tab and line ends."""
    if _CONTROL.search(content) is None:
        try:
            return content.decode(), None
        except UnicodeDecodeError:
            pass
    return base64.b64encode(content).decode("ascii"), "base64"


def begins_like_text(first: bytes) -> bool:
    """Whether a file of these first bytes is taken for text; the last character may be cut."""
    if _CONTROL.search(first) is not None:
        return False
    return len(first.decode(errors="ignore").encode()) >= len(first) - 3


def type_of(encoding: str | None) -> str:
    """The content type of bytes whose name tells nothing."""
    return "text/plain" if encoding is None else "application/octet-stream"


def decode(content: str, encoding: str | None) -> bytes:
    """The bytes; base64 with or without padding. Raises BadContent."""
    try:
        match (encoding or "").lower():
            case "" | "utf-8" | "utf8":
                return content.encode()
            case "base64":
                dense = content.translate({10: None, 13: None}).rstrip("=")
                return base64.b64decode(dense + "=" * (-len(dense) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadContent(f"holds content that cannot be decoded: {error}") from error
    raise BadContent(f"has the unknown encoding {encoding!r}")


def digest_of(told: str | None) -> Digest | None:
    """A ``contentHash`` as our digests are written; None where it is none, or one of another kind."""
    digest = (told or "").lower().removeprefix("sha256:")
    return Digest(digest) if _SHA256.fullmatch(digest) else None


def checked(content: bytes, expected: str | None) -> Digest:
    """The digest of ``content``. Raises BadContent where another one is expected; one of another kind is let be."""
    digest, told = hashlib.sha256(content).hexdigest(), digest_of(expected)
    if told is not None and digest != told:
        raise BadContent("holds other content than its contentHash says")
    return Digest(digest)


def whole(source: Source) -> bytes:
    """Everything that ``source`` has. Raises Refusal 413 for more than ``SIZE_LIMIT``."""
    if source.size > SIZE_LIMIT:
        message = f"the file has {source.size} bytes; this remote takes at most {SIZE_LIMIT}"
        raise Refusal(413, code="payload_too_large", message=message)
    return source.read(0, source.size)
