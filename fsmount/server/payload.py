"""What a client sent for one file, checked and ready for the store.

Invariant: a draft's digest and `byte_size` are of the decoded bytes, its `size` of the stored text.
"""

import base64
import binascii
import hashlib
import json

import msgspec

from fsmount.server.records import Draft
from fsmount.wire.relayfile import Semantics

DEFAULT_CONTENT_TYPE = "text/markdown"


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
