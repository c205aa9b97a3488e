"""``/fs/raw``, our server's extension: bytes as they are, in ranges, and streamed from the spool.

Invariant: no more of a file than what was asked for is in memory, and what is whole has the digest that came with it.
"""

from __future__ import annotations

import json
import re

import msgspec
import trio

from fsmount.errors import Refusal
from fsmount.model import Chunk, Digest, RemotePath, Revision
from fsmount.ports import Upload
from fsmount.remote import content
from fsmount.remote.http import Answer, Call, Client
from fsmount.remote.routes import Headers, Routes
from fsmount.wire.relayfile import Semantics

SEMANTICS = "X-Relayfile-Semantics"
LONGEST_SEMANTICS = 32 * 1024
"""Bytes that fit the header."""
MISSING = frozenset({404, 405, 501})
"""What a server without the route answers; 404 may also speak of the file."""
NOT_SATISFIABLE = 416
LARGE = 1024 * 1024
"""Bytes that are hashed on the loop; more goes to a thread."""
_LOOKED_AT = 64 * 1024
_RANGE = re.compile(r"bytes (?:(\d{1,18})-(\d{1,18})|\*)/(\d{1,18})")
_NO_SEMANTICS = Semantics()


class Raw:
    """The three requests of the route. Every method raises as ``Client.request`` does."""

    def __init__(self, client: Client, routes: Routes) -> None:
        self._client = client
        self._routes = routes

    async def read(self, path: RemotePath, start: int, length: int) -> Chunk:
        """The bytes from ``start`` on, ``length`` of them or as far as the file goes, at whatever revision it has."""
        asked = f"bytes={start}-{start + max(1, length) - 1}"
        call = self._routes.call("GET", "raw", path, headers=(("Range", asked),), accepts=frozenset({NOT_SATISFIABLE}))
        answer = await self._client.request(call)
        begin, total = self._extent(call, answer)
        data = b"" if answer.status == NOT_SATISFIABLE else answer.body
        digest = answer.header("x-content-sha256").lower() or None
        if digest is not None and data and len(data) == total:
            await self._check(call, answer, digest)
        return Chunk(
            data=data,
            start=begin,
            total=total,
            revision=self._revision(call, answer),
            digest=None if digest is None else Digest(digest),
            content_type=answer.header("content-type") or None,
        )

    async def put(self, upload: Upload, semantics: Semantics | None) -> tuple[Call, Answer]:
        """Sends the source as it is. Raises Refusal 403 where the semantics are what is not taken."""
        headers = (
            ("If-None-Match", "*") if upload.base.revision is None else ("If-Match", f'"{upload.base.revision}"'),
            ("Content-Type", await _type_of(upload)),
            ("X-Content-SHA256", upload.digest),
            *_semantics_header(semantics),
        )
        call = self._routes.call("PUT", "raw", upload.path, headers=headers, source=upload.source)
        try:
            return call, await self._client.request(call)
        except Refusal as refusal:
            if semantics is not None and refusal.status in (400, 431) and refusal.code != "digest_mismatch":
                raise forbidden("the remote does not take the file's semantics", refusal) from refusal
            raise

    async def semantics(self, path: RemotePath) -> Semantics | None:
        """What is attached to the file; None where the header cannot hold it."""
        answer = await self._client.request(self._routes.call("HEAD", "raw", path))
        shown = answer.header(SEMANTICS.lower())
        try:
            return msgspec.json.decode(shown, type=Semantics) if shown else _NO_SEMANTICS
        except (msgspec.DecodeError, RecursionError):
            return None

    def _extent(self, call: Call, answer: Answer) -> tuple[int, int]:
        """Where the answer's bytes begin, and how long the file is."""
        if answer.status == 200:
            return 0, len(answer.body)
        match = _RANGE.fullmatch(answer.header("content-range"))
        if match is None or (match[1] is None) != (answer.status == NOT_SATISFIABLE):
            raise self._client.invalid(call, answer, "names no range of bytes")
        total = int(match[3])
        if match[1] is None:
            return total, total
        first, last = int(match[1]), int(match[2])
        if len(answer.body) != last - first + 1 or last >= total:
            raise self._client.invalid(call, answer, "has other bytes than its range says")
        return first, total

    async def _check(self, call: Call, answer: Answer, digest: str) -> None:
        try:
            if len(answer.body) > LARGE:
                await trio.to_thread.run_sync(content.checked, answer.body, digest)
            else:
                content.checked(answer.body, digest)
        except content.BadContent as error:
            raise self._client.invalid(call, answer, str(error)) from error

    def _revision(self, call: Call, answer: Answer) -> Revision:
        revision = answer.header("etag").strip().removeprefix("W/").strip('"')
        if not revision:
            raise self._client.invalid(call, answer, "names no revision")
        return Revision(revision)


def forbidden(message: str, refusal: Refusal) -> Refusal:
    """The refusal of a file whose semantics cannot be carried: without them it would lose its permissions."""
    return Refusal(
        403,
        code="semantics",
        message=f"{message}: {refusal.message}",
        body=refusal.body,
        correlation_id=refusal.correlation_id,
    )


def fits_header(semantics: Semantics | None) -> bool:
    """Whether ``put`` can send them."""
    return all(len(value) <= LONGEST_SEMANTICS for _, value in _semantics_header(semantics))


def _semantics_header(semantics: Semantics | None) -> Headers:
    if semantics is None or semantics == _NO_SEMANTICS:
        return ()
    # Header values are ASCII; msgspec writes UTF-8.
    plain = json.dumps(json.loads(msgspec.json.encode(semantics)), separators=(",", ":"))
    return ((SEMANTICS, plain),)


async def _type_of(upload: Upload) -> str:
    """The content type; where the name tells nothing, the first bytes decide."""
    if upload.content_type:
        return upload.content_type
    first = await trio.to_thread.run_sync(upload.source.read, 0, _LOOKED_AT)
    return content.type_of(None if content.begins_like_text(first) else "base64")
