"""Single files of a relayfile server: read, written, and what is attached to them.

Invariant: every write carries its base as a precondition, and only an answer that names the new revision is a receipt.
Where the server has ``raw``, bytes travel as they are; where that turns out to be gone, as any server takes them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec
import trio

from fsmount.errors import Refusal
from fsmount.model import Chunk, Receipt, RemotePath, Revision
from fsmount.ports import Upload
from fsmount.remote import content
from fsmount.remote.bodycap import BodyCap
from fsmount.remote.features import RAW, Features
from fsmount.remote.http import Answer, Call, Client
from fsmount.remote.raw import LARGE, MISSING, Raw, fits_header, forbidden
from fsmount.remote.routes import Routes, at_base
from fsmount.wire.relayfile import FileBody, PutRequest, Semantics, WriteResult

T = TypeVar("T")
RAW_FROM = 64 * 1024
"""Bytes from which on a file goes as it is where the server takes that: JSON costs more than it saves."""


class _File(FileBody, frozen=True, kw_only=True):
    content: str


class _Exported(_File, frozen=True, kw_only=True):
    path: str


class _Export(msgspec.Struct, frozen=True):
    """How some servers wrap the list."""

    files: list[_Exported]


class FileRoutes:
    """``/fs/file``, ``/fs/raw`` and ``/fs/export`` of one workspace. Every method raises RemoteError."""

    def __init__(self, client: Client, routes: Routes, features: Features, cap: BodyCap) -> None:
        self._client = client
        self._routes = routes
        self._features = features
        self._cap = cap
        self._raw = Raw(client, routes)

    async def read(self, path: RemotePath, start: int, length: int) -> Chunk:
        """Those bytes, or the whole file."""
        return await self._by_raw(lambda: self._raw.read(path, start, length), lambda: self._read_file(path))

    async def _read_file(self, path: RemotePath) -> Chunk:
        """The whole file, in JSON."""
        call = self._routes.call("GET", "file", path)
        answer = await self._client.request(call)
        if len(answer.body) > LARGE:
            return await trio.to_thread.run_sync(self._chunk, call, answer)
        return self._chunk(call, answer)

    async def semantics(self, path: RemotePath) -> Semantics | None:
        """What is attached to a file. Raises Refusal 403 where only a body that is too large would tell."""
        found = await self._by_raw(lambda: self._raw.semantics(path), _nothing)
        if found is not None:
            return found
        call = self._routes.call("GET", "file", path)
        try:
            return self._client.decoded(call, await self._client.request(call), _File).semantics
        except Refusal as refusal:
            if refusal.status == 413:
                raise forbidden("the semantics of the file cannot be read", refusal) from refusal
            raise

    async def put(self, upload: Upload, semantics: Semantics | None) -> Receipt:
        """Writes one file at its base; ``semantics`` None keeps what is attached to it."""
        if upload.source.size <= RAW_FROM or not fits_header(semantics):
            return await self._put_file(upload, semantics)
        return await self._by_raw(lambda: self._put_raw(upload, semantics), lambda: self._put_file(upload, semantics))

    async def _put_raw(self, upload: Upload, semantics: Semantics | None) -> Receipt:
        return self._receipt(upload, *await self._raw.put(upload, semantics))

    async def _put_file(self, upload: Upload, semantics: Semantics | None) -> Receipt:
        if upload.source.size > LARGE:
            body = await trio.to_thread.run_sync(_put_body, upload, semantics)
        else:
            body = _put_body(upload, semantics)
        call = self._routes.call("PUT", "file", upload.path, headers=at_base(upload.base.revision), body=body)
        try:
            answer = await self._client.request(call)
        except Refusal as refusal:
            if refusal.status != 413:
                raise
            self._cap.refused(len(body))
            if RAW not in self._features:
                raise
            return await self._put_raw(upload, semantics)
        self._cap.accepted(len(body))
        return self._receipt(upload, call, answer)

    def _receipt(self, upload: Upload, call: Call, answer: Answer) -> Receipt:
        result = self.written(call, answer)
        return Receipt(
            path=upload.path,
            revision=Revision(result.target_revision),
            digest=upload.digest,
            remote_op_id=result.op_id or None,
            correlation_id=answer.correlation_id,
        )

    def written(self, call: Call, answer: Answer) -> WriteResult:
        """What a write was answered; it names a revision."""
        result = self._client.decoded(call, answer, WriteResult)
        if not result.target_revision:
            raise self._client.invalid(call, answer, "names no revision")
        return result

    async def all_below(self, directory: RemotePath) -> list[tuple[RemotePath, Chunk]]:
        """Every file below a directory, whole, in one request."""
        call = self._routes.call("GET", "export", directory, more="&format=json")
        answer = await self._client.request(call)
        return await trio.to_thread.run_sync(self._exported, call, answer)

    def _exported(self, call: Call, answer: Answer) -> list[tuple[RemotePath, Chunk]]:
        told: list[_Exported] | _Export = self._client.decoded(call, answer, list[_Exported] | _Export)  # type: ignore[arg-type]
        files = told.files if isinstance(told, _Export) else told
        return [(RemotePath(file.path), self._chunk_of(call, answer, file)) for file in files]

    def _chunk(self, call: Call, answer: Answer) -> Chunk:
        return self._chunk_of(call, answer, self._client.decoded(call, answer, _File))

    def _chunk_of(self, call: Call, answer: Answer, file: _File) -> Chunk:
        if not file.revision:
            raise self._client.invalid(call, answer, "names no revision")
        try:
            body = content.decode(file.content, file.encoding)
            digest = content.checked(body, file.content_hash)
        except content.BadContent as error:
            raise self._client.invalid(call, answer, str(error)) from error
        return Chunk(
            data=body,
            start=0,
            total=len(body),
            revision=Revision(file.revision),
            digest=digest,
            content_type=file.content_type or None,
        )

    async def _by_raw(self, raw: Callable[[], Awaitable[T]], plain: Callable[[], Awaitable[T]]) -> T:
        """By the extension where it is announced; as any server takes it where that turns out not to hold any more."""
        if RAW not in self._features:
            return await plain()
        try:
            return await raw()
        except Refusal as refusal:
            if refusal.status not in MISSING:
                raise
            await self._features.ask()
            if RAW in self._features:
                raise
        return await plain()


async def _nothing() -> None:
    return None


def _put_body(upload: Upload, semantics: Semantics | None) -> bytes:
    text, encoding = content.encode(content.whole(upload.source))
    content_type = upload.content_type or content.type_of(encoding)
    asked = PutRequest(content=text, content_type=content_type, encoding=encoding, semantics=semantics)
    return msgspec.json.encode(asked)
