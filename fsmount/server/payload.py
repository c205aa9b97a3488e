"""What a client sent for one file, checked and ready for the store.

Invariant: a draft's digest and `byte_size` are of the decoded bytes, its `size` of the stored text.
"""

import base64
import binascii
import hashlib
import json
import re

import msgspec

from fsmount.server.records import Draft
from fsmount.wire.relayfile import Semantics

DEFAULT_CONTENT_TYPE = "text/markdown"
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class UnknownEncoding(Exception):
    """Neither UTF-8 text nor base64."""


class BadContent(Exception):
    """The content is not what its encoding says."""


def draft(
    path: str, content: str | None, encoding: str | None, content_type: str | None, semantics: Semantics | None = None
) -> Draft:
    """The file that these members describe. Raises UnknownEncoding or BadContent."""
    stored = content or ""
    kind = _encoding(encoding)
    text = stored.encode()
    decoded = _base64(text) if kind == "base64" else text
    return Draft(
        path=path,
        content=stored,
        encoding=kind,
        content_type=content_type or DEFAULT_CONTENT_TYPE,
        digest=hashlib.sha256(decoded).hexdigest(),
        size=len(text),
        byte_size=len(decoded),
        semantics=_semantics(semantics),
    )


def draft_of_bytes(path: str, content: bytes, content_type: str, semantics: Semantics | None) -> Draft:
    """The file that these bytes are: stored as text where they are text, else as base64."""
    try:
        if _CONTROL.search(content):
            raise ValueError("binary")
        return draft(path, content.decode(), "utf-8", content_type, semantics)
    except ValueError:
        return draft(path, encoded(content), "base64", content_type, semantics)


def draft_of_file(path: str, size: int, digest: str, content_type: str, semantics: Semantics | None) -> Draft:
    """A file whose `size` bytes do not lie in its row; its stored size is that of the base64 text they would be."""
    return Draft(
        path=path,
        content=None,
        encoding="base64",
        content_type=content_type,
        digest=digest,
        size=base64_length(size),
        byte_size=size,
        semantics=_semantics(semantics),
    )


def decoded(content: str, encoding: str) -> bytes:
    """The bytes of a stored file."""
    return _base64(content.encode()) if encoding == "base64" else content.encode()


def encoded(content: bytes) -> str:
    """Bytes as base64."""
    return base64.b64encode(content).decode("ascii")


def base64_length(size: int) -> int:
    """Letters of `size` bytes in base64."""
    return -(-size // 3) * 4


def _encoding(name: str | None) -> str:
    match (name or "").strip().lower():
        case "" | "utf-8" | "utf8":
            return "utf-8"
        case "base64":
            return "base64"
    raise UnknownEncoding(f"encoding {name!r} is neither utf-8 nor base64")


def _base64(text: bytes) -> bytes:
    """Decode with or without padding; line ends inside are allowed, as the reference server does."""
    dense = text.replace(b"\r", b"").replace(b"\n", b"").rstrip(b"=")
    try:
        return base64.b64decode(dense + b"=" * (-len(dense) % 4), validate=True)
    except binascii.Error as error:
        raise BadContent("content is not valid base64") from error


def _semantics(given: Semantics | None) -> str | None:
    if given is None or not (given.properties or given.relations or given.permissions or given.comments):
        return None
    properties: dict[str, object] = {name: _text(value) for name, value in (given.properties or {}).items()}
    kept = Semantics(
        properties=properties or None,
        relations=given.relations or None,
        permissions=given.permissions or None,
        comments=given.comments or None,
    )
    return msgspec.json.encode(kept).decode()


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
