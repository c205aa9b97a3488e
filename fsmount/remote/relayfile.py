"""A relayfile server as ``ports.Remote`` (relayfile-api, sections 1 to 13).

Invariant: every write carries the base as a precondition, and only an answer that names the new revision is a receipt.
Listings and files are taken whole or not at all.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Self, TypeVar
from urllib.parse import quote, urlencode

import msgspec
import trio

from fsmount.config import Credentials, RemoteUrl
from fsmount.errors import InvalidAnswer, Refusal, RemoteError
from fsmount.model import (
    ROOT,
    Base,
    Capabilities,
    Change,
    Chunk,
    Entry,
    Problem,
    ProviderFailed,
    Receipt,
    RemotePath,
    Revision,
    name_of,
    parent_of,
)
from fsmount.ports import EventLog, Upload
from fsmount.remote import batch, content, explain
from fsmount.remote.bodycap import BodyCap
from fsmount.remote.credentials import TokenSource
from fsmount.remote.entries import entries
from fsmount.remote.feed import Feed
from fsmount.remote.http import Answer, Call, Client
from fsmount.remote.raw import FEATURE, LARGE, MISSING, Raw, fits_header, forbidden
from fsmount.remote.routes import Routes, at_base
from fsmount.wire.relayfile import (
    BulkResponse,
    Event,
    EventPage,
    FileBody,
    Health,
    PutRequest,
    Semantics,
    TreeEntry,
    TreePage,
    WriteResult,
)

T = TypeVar("T")
RESTARTS = 5
RAW_FROM = 64 * 1024
"""Bytes from which on a file goes as it is where the server takes that: JSON costs more than it saves."""
DEEPEST = 100
MOST_PAGES = 30
"""Pages of a listing that are worth reading before a subtree is fetched at once."""
NO_EXPORT = frozenset({400, 403, 404, 405, 413, 501})
"""Answers after which no subtree is asked for at once until the remote is probed again."""


class _Tree(TreePage, frozen=True, kw_only=True):
    """A page that names what every relayfile page names: a login page in JSON is no empty directory."""

    path: str
    entries: tuple[TreeEntry, ...] | None


class _File(FileBody, frozen=True, kw_only=True):
    content: str


class _Exported(_File, frozen=True, kw_only=True):
    path: str


class _Events(EventPage, frozen=True, kw_only=True):
    events: tuple[Event, ...] | None


class RelayfileRemote:
    """One workspace of one server. ``timeout`` and ``poll`` are seconds.

    ``features`` are the server's extensions where they are known; else ``GET /health`` is asked before a listing.
    ``problems`` is told with each listing of a directory what of it is not shown as it is.
    """

    def __init__(
        self,
        url: RemoteUrl,
        credentials: Credentials,
        *,
        timeout: float,
        log: EventLog,
        features: frozenset[str] | None = None,
        poll: float = 1.0,
        problems: Callable[[RemotePath, Sequence[Problem]], None] | None = None,
    ) -> None:
        self._url = url
        self._log = log
        self._problems = problems
        self._features = features
        self._routes = Routes(url.workspace)
        self._tokens = TokenSource(
            credentials,
            warn=partial(log.note, "credential.exposed", level="warning"),
            command_timeout=min(10.0, timeout * 0.8),
        )
        self._client = Client(url.origin, self._tokens, timeout=timeout, log=log)
        self._raw = Raw(self._client, self._routes)
        self._cap = BodyCap()
        self._exports = True
        self._feed = Feed(self._events, poll)
        self._skipped: set[str] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @property
    def capabilities(self) -> Capabilities:
        """What the server can do, as far as it is known by now."""
        has_raw = FEATURE in (self._features or ())
        return Capabilities(
            ranges=has_raw,
            batch_put=True,
            batch_read=self._exports,
            feed=True,
            exact_sizes="byte-size" in (self._features or ()),
            max_batch_bytes=self._cap.max_batch_bytes,
            size_limit=None if has_raw else self._cap.size_limit,
            trims_names=True,
        )

    @property
    def requests(self) -> int:
        """HTTP requests sent since the start."""
        return self._client.requests

    async def probe(self) -> None:
        """See the port. What is raised says to a person what is wrong and, in ``hint``, what to do.

        A server that comes back may be another version, with other limits.
        """
        try:
            await self._ask_features()
            self._cap.forget()
            self._exports = True
            await self._page(self._url.root, "")
        except Refusal as error:
            raise explain.refused(error, self._url) from error
        except InvalidAnswer as error:
            raise explain.foreign(self._url, error.status, error.body, error.correlation_id) from error

    async def listing(self, directory: RemotePath) -> list[Entry]:
        features = await self._learned()
        rows = await self._rows(directory)
        found, problems = entries(rows, directory, exact="byte-size" in features)
        for problem in problems:
            self._note_once(directory, problem)
        if self._problems is not None:
            self._problems(directory, problems)
        return found

    async def read(self, path: RemotePath, revision: Revision | None, start: int, length: int) -> Chunk:  # noqa: ARG002
        return await self._by_raw(lambda: self._raw.read(path, start, length), lambda: self._read_file(path))

    async def read_below(self, directory: RemotePath, most: int) -> list[tuple[RemotePath, Chunk]] | None:
        try:
            if await self._weighs_more(directory, most):
                return None
            call = self._routes.call("GET", "export", directory, more="&format=json")
            answer = await self._client.request(call)
        except Refusal as refusal:
            self._exports = refusal.status not in NO_EXPORT
            raise
        return await trio.to_thread.run_sync(self._exported, call, answer)

    async def put(self, upload: Upload) -> Receipt:
        return await self._put(upload, None)

    async def put_many(self, uploads: Sequence[Upload]) -> list[Receipt | RemoteError]:
        files: dict[int, msgspec.Raw] = {}
        found: batch.Verdicts = [None] * len(uploads)
        for place, upload in enumerate(uploads):
            try:
                files[place] = batch.encoded(upload)
            except Refusal as refusal:
                found[place] = refusal
        sent = [uploads[place] for place in files]
        told = await self._bulk(sent, batch.request(list(files.values()))) if sent else []
        for place, verdict in zip(files, told, strict=True):
            found[place] = verdict
        return [verdict for verdict in found if verdict is not None]

    async def delete(self, path: RemotePath, base: Base) -> Receipt:
        call = self._routes.call("DELETE", "file", path, headers=at_base(base.revision))
        answer = await self._client.request(call)
        result = self._written(call, answer)
        return Receipt(
            path=path, revision=None, remote_op_id=result.op_id or None, correlation_id=answer.correlation_id
        )

    async def copy_metadata(self, upload: Upload, source: RemotePath, revision: Revision | None) -> Receipt:  # noqa: ARG002
        try:
            semantics = await self._semantics(source)
        except Refusal as refusal:
            if refusal.status != 404:
                raise
            semantics = None
        return await self._put(upload, semantics)

    async def remove_directory(self, path: RemotePath) -> None:
        # A directory is there by what lies in it: an empty one is gone already, and nothing is sent.
        if (await self._page(path, "")).entries:
            raise Refusal(409, code="not_empty", message=f"{path} holds files on the remote")

    def changes(self) -> AsyncIterator[Change | ProviderFailed | None]:
        return self._feed

    def watch_changes(self, looked: Callable[[], None]) -> None:
        """``looked`` is called whenever the feed was read, be it that nothing had changed; it must not block."""
        self._feed.looked = looked

    def credential_changed(self) -> bool:
        return self._tokens.changed()

    def read_credential_again(self) -> bool:
        """As ``credential_changed``, at a person's word: a token command is run anew even if it was just now."""
        return self._tokens.changed(asked=True)

    async def aclose(self) -> None:
        await self._client.aclose()

    # requests

    async def _learned(self) -> frozenset[str]:
        """The server's extensions, asked for where they are not known."""
        return self._features if self._features is not None else await self._ask_features()

    async def _ask_features(self) -> frozenset[str]:
        """The same, asked for now; a server without that route has none."""
        call = Call(method="GET", target="/health", anonymous=True)
        try:
            health = self._client.decoded(call, await self._client.request(call), Health)
            self._features = frozenset(health.features or ())
        except Refusal as refusal:
            if refusal.status >= 500 or refusal.status in (408, 425, 429):
                raise
            self._features = frozenset()
        return self._features

    async def _by_raw(self, raw: Callable[[], Awaitable[T]], plain: Callable[[], Awaitable[T]]) -> T:
        """By the extension where it is announced; as any server takes it where that turns out not to hold any more."""
        if FEATURE not in (self._features or ()):
            return await plain()
        try:
            return await raw()
        except Refusal as refusal:
            if refusal.status not in MISSING or FEATURE in await self._ask_features():
                raise
        return await plain()

    async def _page(self, directory: RemotePath, cursor: str, depth: int = 1) -> _Tree:
        cursors = f"&cursor={quote(cursor)}" if cursor else ""
        call = self._routes.call("GET", "tree", directory, more=f"&depth={depth}{cursors}")
        answer = await self._client.request(call)
        return self._client.decoded(call, answer, _Tree)

    async def _rows(self, directory: RemotePath) -> list[TreeEntry]:
        """All pages. When the entry that a cursor names has gone meanwhile (400), it begins anew."""
        restarts = 0
        while True:
            first = await self._page(directory, "")
            try:
                return await self._rest(directory, first)
            except Refusal as refusal:
                if refusal.status != 400 or restarts == RESTARTS:
                    raise
                restarts += 1

    async def _rest(self, directory: RemotePath, page: _Tree) -> list[TreeEntry]:
        rows, seen = list(page.entries or ()), set[str]()
        while page.next_cursor:
            if page.next_cursor in seen:
                raise InvalidAnswer(f"the listing of {directory} does not end")
            seen.add(page.next_cursor)
            page = await self._page(directory, page.next_cursor)
            rows += page.entries or ()
        return rows

    async def _weighs_more(self, directory: RemotePath, most: int) -> bool:
        """Whether the files below hold more than ``most`` bytes as they are stored, or are too many to tell."""
        page, weight, pages = await self._page(directory, "", DEEPEST), 0, 1
        while True:
            weight += sum(row.byte_size or row.size or 0 for row in page.entries or ())
            if weight > most or (page.next_cursor and pages == MOST_PAGES):
                return True
            if not page.next_cursor:
                return False
            page, pages = await self._page(directory, page.next_cursor, DEEPEST), pages + 1

    async def _read_file(self, path: RemotePath) -> Chunk:
        """The whole file, in JSON."""
        call = self._routes.call("GET", "file", path)
        answer = await self._client.request(call)
        if len(answer.body) > LARGE:
            return await trio.to_thread.run_sync(self._chunk, call, answer)
        return self._chunk(call, answer)

    async def _semantics(self, path: RemotePath) -> Semantics | None:
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

    async def _put(self, upload: Upload, semantics: Semantics | None) -> Receipt:
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
            if FEATURE not in (self._features or ()):
                raise
            return await self._put_raw(upload, semantics)
        self._cap.accepted(len(body))
        return self._receipt(upload, call, answer)

    def _receipt(self, upload: Upload, call: Call, answer: Answer) -> Receipt:
        result = self._written(call, answer)
        return Receipt(
            path=upload.path,
            revision=Revision(result.target_revision),
            digest=upload.digest,
            remote_op_id=result.op_id or None,
            correlation_id=answer.correlation_id,
        )

    def _written(self, call: Call, answer: Answer) -> WriteResult:
        result = self._client.decoded(call, answer, WriteResult)
        if not result.target_revision:
            raise self._client.invalid(call, answer, "names no revision")
        return result

    async def _bulk(self, uploads: Sequence[Upload], body: bytes) -> list[Receipt | RemoteError]:
        if len(body) > self._cap.max_batch_bytes and len(uploads) > 1:
            message = f"{len(body)} bytes in one batch, of at most {self._cap.max_batch_bytes}"
            raise Refusal(413, code="batch_too_large", message=message)
        call = Call(method="POST", target=f"{self._routes.prefix}bulk", path=uploads[0].path, content=body)
        try:
            answer = await self._client.request(call)
        except Refusal as refusal:
            if refusal.status == 413:
                self._cap.refused(len(body), files=len(uploads))
            raise
        self._cap.accepted(len(body))
        told = self._client.decoded(call, answer, BulkResponse)
        found = batch.verdicts(uploads, told, answer.correlation_id, self._client.hidden)
        for upload, verdict in zip(uploads, found, strict=True):
            if isinstance(verdict, Refusal):
                self._client.note_refusal(call, upload.path, verdict)
        return await self._looked_up(uploads, found, answer.correlation_id)

    async def _looked_up(
        self, uploads: Sequence[Upload], found: batch.Verdicts, correlation_id: str
    ) -> list[Receipt | RemoteError]:
        """Asks the remote what became of the files on which the answer was silent, a listing a directory."""
        listed: dict[RemotePath, dict[str, Entry] | RemoteError] = {}
        settled: list[Receipt | RemoteError] = []
        for upload, verdict in zip(uploads, found, strict=True):
            if verdict is not None:
                settled.append(verdict)
                continue
            parent = parent_of(upload.path)
            if parent not in listed:
                listed[parent] = await self._listed(parent)
            settled.append(_verdict(upload, listed[parent], correlation_id))
        return settled

    async def _listed(self, directory: RemotePath) -> dict[str, Entry] | RemoteError:
        try:
            return {name_of(entry.path): entry for entry in await self.listing(directory)}
        except RemoteError as error:
            return error

    async def _events(self, query: dict[str, str]) -> EventPage:
        call = Call(method="GET", target=f"{self._routes.prefix}events?{urlencode(query, quote_via=quote)}", path=ROOT)
        return self._client.decoded(call, await self._client.request(call), _Events)

    # answers

    def _exported(self, call: Call, answer: Answer) -> list[tuple[RemotePath, Chunk]]:
        files = self._client.decoded(call, answer, list[_Exported])
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

    def _note_once(self, directory: RemotePath, problem: Problem) -> None:
        if problem.path not in self._skipped:
            self._skipped.add(problem.path)
            self._log.note("name.skipped", f"{problem.path[:300]!r}: {problem.why}", path=directory, level="warning")


async def _nothing() -> None:
    return None


def _put_body(upload: Upload, semantics: Semantics | None) -> bytes:
    text, encoding = content.encode(content.whole(upload.source))
    content_type = upload.content_type or content.type_of(encoding)
    asked = PutRequest(content=text, content_type=content_type, encoding=encoding, semantics=semantics)
    return msgspec.json.encode(asked)


def _verdict(upload: Upload, listed: dict[str, Entry] | RemoteError, correlation_id: str) -> Receipt | RemoteError:
    if isinstance(listed, RemoteError):
        return listed
    entry = listed.get(name_of(upload.path))
    if entry is None or entry.revision is None or entry.digest != upload.digest:
        return InvalidAnswer("the batch was accepted, but not a word on this file", correlation_id=correlation_id)
    return Receipt(path=upload.path, revision=entry.revision, digest=upload.digest, correlation_id=correlation_id)
