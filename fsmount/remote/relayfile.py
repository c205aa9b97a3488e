"""A relayfile server as ``ports.Remote`` (relayfile-api, sections 1 to 13).

Invariant: every write carries the base as a precondition, and only an answer that names the new revision is a receipt.
Listings and files are taken whole or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Self
from urllib.parse import quote, urlencode

import msgspec

from fsmount.config import Credentials, RemoteUrl
from fsmount.errors import InvalidAnswer, Refusal, RemoteError
from fsmount.model import (
    ROOT,
    Base,
    Capabilities,
    Chunk,
    Entry,
    Feed,
    Problem,
    ProviderResult,
    Receipt,
    RemotePath,
    Revision,
    Told,
)
from fsmount.ports import EventLog, Upload
from fsmount.remote import batch, claims, explain
from fsmount.remote.attached import Attached
from fsmount.remote.bodycap import BodyCap
from fsmount.remote.credentials import TokenSource
from fsmount.remote.entries import entries
from fsmount.remote.features import BYTE_SIZE, RAW, Features
from fsmount.remote.feed import ChangeFeed
from fsmount.remote.files import FileRoutes
from fsmount.remote.history import History
from fsmount.remote.http import Call, Client
from fsmount.remote.provider import Operations
from fsmount.remote.routes import Routes, at_base
from fsmount.remote.trees import Trees
from fsmount.remote.unanswered import Unanswered
from fsmount.remote.websocket import PING, Sockets
from fsmount.wire.relayfile import BulkResponse, Event, EventPage

NO_EXPORT = frozenset({404, 405, 501})
"""Answers after which no subtree is asked for at once until the remote is probed again."""


class _Events(EventPage, frozen=True, kw_only=True):
    events: tuple[Event, ...] | None


class RelayfileRemote:
    """One workspace of one server. ``timeout``, ``poll`` and ``ping`` (the live feed's) are seconds.

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
        ping: float = PING,
        problems: Callable[[RemotePath, Sequence[Problem]], None] | None = None,
    ) -> None:
        self._url = url
        self._log = log
        self._problems = problems
        self._routes = Routes(url.workspace)
        self._tokens = TokenSource(
            credentials,
            warn=partial(log.note, "credential.exposed", level="warning"),
            command_timeout=min(10.0, timeout * 0.8),
        )
        self._client = Client(url.origin, self._tokens, timeout=timeout, log=log)
        self._features = Features(self._client, features)
        self._cap = BodyCap()
        self._trees = Trees(self._client, self._routes)
        self._files = FileRoutes(self._client, self._routes, self._features, self._cap)
        self._attached = Attached(self._trees, self._files, self._features)
        self._unanswered = Unanswered(self.listing, self._files.read)
        self._exports = True
        self._history = History(self._events)
        self._feed = self._change_feed(poll, timeout, ping)
        self._operations = Operations(self._client, url.workspace)
        self._skipped: set[str] = set()
        self._writing: tuple[str, claims.Writing] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @property
    def capabilities(self) -> Capabilities:
        """What the server can do, as far as it is known by now."""
        has_raw = RAW in self._features
        return Capabilities(
            ranges=has_raw,
            batch_put=True,
            batch_read=self._exports,
            feed=True,
            exact_sizes=BYTE_SIZE in self._features,
            max_batch_bytes=self._cap.max_batch_bytes,
            # Of a server that was never asked, as after a start without a network, no limit is known.
            size_limit=self._cap.size_limit if self._features.are_known and not has_raw else None,
            trims_names=True,
        )

    def may_write(self, path: RemotePath | None = None) -> bool:
        granted = self._grants()
        return granted is None or (granted.anywhere if path is None else granted.at(path))

    def writable(self) -> tuple[str, ...] | None:
        granted = self._grants()
        return None if granted is None else granted.places

    def _grants(self) -> claims.Writing | None:
        """What the token in use says of writing; None where there is none yet."""
        token = self._tokens.current
        if token is None:
            return None
        if self._writing is None or self._writing[0] is not token:
            self._writing = (token, claims.Writing(token))
        return self._writing[1]

    @property
    def requests(self) -> int:
        """HTTP requests sent since the start."""
        return self._client.requests

    async def probe(self) -> None:
        """See the port. What is raised says to a person what is wrong and, in ``hint``, what to do.

        A server that comes back may be another version, with other limits.
        """
        try:
            await self._features.ask()
            self._cap.forget()
            self._exports = True
            await self._trees.page(self._url.root)
        except Refusal as error:
            raise explain.refused(error, self._url) from error
        except InvalidAnswer as error:
            raise explain.foreign(self._url, error.status, error.body, error.correlation_id) from error

    async def listing(self, directory: RemotePath) -> list[Entry]:
        await self._features.learn()
        rows = await self._trees.rows(directory)
        found, problems = entries(rows, directory, exact=BYTE_SIZE in self._features)
        for problem in problems:
            self._note_once(directory, problem)
        if self._problems is not None:
            self._problems(directory, problems)
        return found

    async def read(self, path: RemotePath, revision: Revision | None, start: int, length: int) -> Chunk:  # noqa: ARG002
        return await self._files.read(path, start, length)

    async def read_below(self, directory: RemotePath, most: int) -> list[tuple[RemotePath, Chunk]] | None:
        if await self._trees.weighs_more(directory, most):
            return None
        try:
            return await self._files.all_below(directory)
        except Refusal as refusal:
            self._exports = refusal.status not in NO_EXPORT
            raise

    async def put(self, upload: Upload) -> Receipt:
        return await self._files.put(upload, await self._attached.of(upload))

    async def put_many(self, uploads: Sequence[Upload]) -> list[Receipt | RemoteError]:
        files: dict[int, msgspec.Raw] = {}
        found: batch.Verdicts = [None] * len(uploads)
        for place, attached in enumerate(await self._attached.of_each(uploads)):
            try:
                match attached:
                    case None:
                        files[place] = batch.encoded(uploads[place])
                    case RemoteError():
                        found[place] = attached
                    case _:
                        found[place] = await self._files.put(uploads[place], attached)
            except RemoteError as error:
                found[place] = error
        sent = [uploads[place] for place in files]
        told = await self._bulk(sent, batch.request(list(files.values()))) if sent else []
        for place, verdict in zip(files, told, strict=True):
            found[place] = verdict
        return [verdict for verdict in found if verdict is not None]

    async def delete(self, path: RemotePath, base: Base) -> Receipt:
        call = self._routes.call("DELETE", "file", path, headers=at_base(base.revision))
        answer = await self._client.request(call)
        result = self._files.written(call, answer)
        return Receipt(
            path=path,
            revision=None,
            remote_op_id=result.op_id or None,
            correlation_id=answer.correlation_id,
            tombstone=Revision(result.target_revision),
        )

    async def copy_metadata(self, upload: Upload, source: RemotePath, revision: Revision | None) -> Receipt:  # noqa: ARG002
        # A source that is gone has no permissions left to carry: without them nothing is created.
        return await self._files.put(upload, await self._files.semantics(source))

    async def remove_directory(self, path: RemotePath) -> None:
        # A directory is there by what lies in it: an empty one is gone already, and nothing is sent.
        if (await self._trees.page(path)).entries:
            raise Refusal(409, code="not_empty", message=f"{path} holds files on the remote")

    async def follow(self, told: Callable[[Told | None], None], going: Callable[[Feed], None]) -> None:
        await self._feed.follow(told, going)

    def watch_reset(self, is_reset: Callable[[], None]) -> None:
        """``is_reset`` is called when the server turns out to be set up anew, or restored; it must not block."""
        self._history.is_reset = is_reset

    @property
    def credentials_taken(self) -> int:
        """Grows with every new token: what was refused may be granted now."""
        return self._tokens.taken

    async def provider_result(self, remote_op_id: str) -> ProviderResult:
        return await self._operations.result(remote_op_id)

    async def failed_at_provider(self) -> list[ProviderResult]:
        return await self._operations.failed()

    async def replay(self, remote_op_id: str) -> None:
        await self._operations.replay(remote_op_id)

    def credential_changed(self) -> bool:
        return self._tokens.changed()

    def read_credential_again(self) -> bool:
        """As ``credential_changed``, at a person's word: a token command is run anew even if it was just now."""
        return self._tokens.changed(asked=True)

    async def aclose(self) -> None:
        await self._client.aclose()

    # the feed

    def _change_feed(self, poll: float, timeout: float, ping: float) -> ChangeFeed:
        """Live where the way to the server is direct: WebSockets do not go through a proxy of the environment."""
        sockets = Sockets(
            self._url.origin,
            f"{self._routes.prefix}ws",
            self._tokens,
            trust=self._client.trust,
            timeout=timeout,
            ping=ping,
            surprised=partial(self._log.note, "feed", level="error"),
        )
        root = () if self._url.root == ROOT else (claims.below(self._url.root),)
        return ChangeFeed(
            self._history,
            None if self._client.proxied else sockets,
            poll=poll,
            root=root,
            granted=self._granted,
            note=partial(self._log.note, "feed"),
        )

    async def _granted(self) -> list[list[str]]:
        """Everything that the mount shows, and what the token itself says it may read of that."""
        narrow = claims.readable(await self._tokens.token(), self._url.root)
        return [[claims.below(self._url.root)], *([narrow] if narrow else [])]

    # requests

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
        return await self._unanswered.looked_up(uploads, found, answer.correlation_id)

    async def _events(self, query: dict[str, str]) -> EventPage:
        call = Call(method="GET", target=f"{self._routes.prefix}events?{urlencode(query, quote_via=quote)}", path=ROOT)
        return self._client.decoded_names(call, await self._client.request(call), _Events)

    def _note_once(self, directory: RemotePath, problem: Problem) -> None:
        if problem.path not in self._skipped:
            self._skipped.add(problem.path)
            self._log.note("name.skipped", f"{problem.path[:300]!r}: {problem.why}", path=directory, level="warning")
