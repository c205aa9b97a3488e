"""A remote in memory that breaks on purpose, for tests of the parts that stand before the network.

Invariant: without a scripted fault it behaves as ``tests.support.conformance`` demands of every remote. A call
counts when it begins, whatever becomes of it; a foreign write (``write``, ``remove``) is no call.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import trio
from msgspec import Struct
from msgspec.structs import replace

from fsmount.errors import Refusal, RemoteError, Unreachable
from fsmount.model import (
    ABSENT,
    Base,
    Capabilities,
    Change,
    Chunk,
    Entry,
    Feed,
    Kind,
    ProviderFailed,
    ProviderResult,
    ProviderState,
    ProviderSucceeded,
    Receipt,
    RemotePath,
    Revision,
    Told,
    is_below,
    join,
)
from fsmount.ports import Upload
from tests.support.uploads import digest_of

T = TypeVar("T")
FULL = Capabilities(batch_put=True, feed=True, exact_sizes=True)


class StoredFile(Struct, frozen=True, kw_only=True):
    content: bytes
    revision: Revision
    mtime: float
    content_type: str = "text/plain"
    metadata: tuple[str, ...] = ()


class Fault(Struct, kw_only=True):
    """What happens to the ``nth`` matching call and the ``times - 1`` after it.

    ``error`` is raised; before the call takes effect, or, with ``applied``, after it (the answer was lost). ``gate`` is
    waited for first: ``Fault(gate=trio.Event())`` without setting it hangs. ``receipt`` rewrites what the call returns.
    """

    method: str
    path: RemotePath | None = None
    nth: int = 1
    times: int = 1
    error: Callable[[], RemoteError] | None = None
    applied: bool = False
    gate: trio.Event | None = None
    receipt: Callable[[Receipt], Receipt] | None = None
    seen: int = 0

    def strikes(self, method: str, path: RemotePath | None) -> bool:
        """Counts the call if it is one of those meant; whether it is hit."""
        if method != self.method or (self.path is not None and path != self.path):
            return False
        self.seen += 1
        return self.nth <= self.seen < self.nth + self.times


class FakeRemote:
    """See the module. A fault on ``put`` hits that file inside a batch too, as its verdict there; one on ``put_many``
    the whole request.

    ``calls`` counts requests by method, ``requests`` lists them with their path (the first one of a batch).
    ``online = False`` makes every call Unreachable; ``authorized = False`` a Refusal 401 until ``renew`` was called.
    """

    def __init__(self, capabilities: Capabilities = FULL, *, now: Callable[[], float] = time.time) -> None:
        self.capabilities = capabilities
        self.online = True
        self.writable_below: tuple[str, ...] = ("/",)
        """The beginnings of paths that the credential says it may write."""
        self.authorized = True
        self.closed = False
        self.files: dict[RemotePath, StoredFile] = {}
        self.calls: Counter[str] = Counter()
        self.requests: list[tuple[str, RemotePath]] = []
        self.batches: list[int] = []
        self.faults: list[Fault] = []
        self._now = now
        self._counter = 0
        self._identities: dict[str, Receipt] = {}
        self.operations: dict[str, ProviderResult] = {}
        """What became of accepted writes at the provider, by the remote's own name for them."""
        self._events: list[Told | RemoteError | None] = []
        self._feed_at: int | None = None
        self._moved = trio.Event()
        self._renewed = False

    # what somebody else does to the remote, and what a test asks of it

    def write(self, path: str, content: bytes, *, metadata: tuple[str, ...] = ()) -> Revision:
        """A foreign write; the new revision."""
        return self._store(RemotePath(path), content, "text/plain", metadata).revision

    def remove(self, path: str) -> None:
        """A foreign delete."""
        del self.files[RemotePath(path)]
        self._announce(Change(path=RemotePath(path), revision=None, at=self._now()))

    def content(self, path: str) -> bytes | None:
        found = self.files.get(RemotePath(path))
        return None if found is None else found.content

    def base(self, path: str) -> Base:
        """The base of a change made now."""
        found = self.files.get(RemotePath(path))
        return ABSENT if found is None else Base(found.revision, digest_of(found.content))

    def reset_feed(self) -> None:
        """The feed says that changes may have been missed."""
        self._announce(None)

    def break_feed(self, error: RemoteError) -> None:
        """The feed raises ``error`` once everything before it was told; the next ``follow`` goes on behind it."""
        self._announce(error)

    def provider_fails(self, remote_op_id: str, error: str = "no such issue", *, told: bool = True) -> None:
        """The provider gives the accepted write up; ``told``: the feed says so."""
        self._resolve(remote_op_id, ProviderState.FAILED, "dead_lettered", error)
        found = self.operations[remote_op_id]
        if told and found.path is not None:
            self._announce(ProviderFailed(path=found.path, revision=found.revision, at=self._now()))

    def provider_succeeds(self, remote_op_id: str, *, told: bool = True) -> None:
        self._resolve(remote_op_id, ProviderState.SUCCEEDED, "succeeded", "")
        found = self.operations[remote_op_id]
        if told and found.path is not None:
            self._announce(ProviderSucceeded(path=found.path, revision=found.revision, at=self._now()))

    def _resolve(self, remote_op_id: str, state: ProviderState, said: str, error: str) -> None:
        found = self.operations[remote_op_id]
        body = f'{{"lastError":"{error}"}}'
        self.operations[remote_op_id] = replace(found, state=state, said=said, error=error, body=body)

    def renew(self) -> None:
        """A fresh credential lies ready: ``credential_changed`` says so once, and calls are authorized again."""
        self.authorized = True
        self._renewed = True

    # the script

    def fail(self, method: str, error: Callable[[], RemoteError] | RemoteError, **how: object) -> Fault:
        """``fail("put", Refusal(503), times=2)``; see Fault for the rest."""
        made = (lambda: error) if isinstance(error, RemoteError) else error
        return self.script(Fault(method=method, error=made, **how))  # type: ignore[arg-type]

    def lose_answer(self, method: str, **how: object) -> Fault:
        """The call takes effect, but no answer comes."""
        return self.script(
            Fault(method=method, error=lambda: Unreachable("the answer was lost"), applied=True, **how)  # type: ignore[arg-type]
        )

    def hold(self, method: str, **how: object) -> trio.Event:
        """The call waits for the returned event before it takes effect; for ever if nobody sets it."""
        gate = trio.Event()
        self.script(Fault(method=method, gate=gate, **how))  # type: ignore[arg-type]
        return gate

    def misreport(self, method: str, revision: str, **how: object) -> Fault:
        """The call takes effect and its receipt names ``revision``."""
        return self.script(
            Fault(method=method, receipt=lambda true: _with_revision(true, Revision(revision)), **how)  # type: ignore[arg-type]
        )

    def script(self, fault: Fault) -> Fault:
        self.faults.append(fault)
        return fault

    @contextmanager
    def offline(self) -> Iterator[None]:
        self.online = False
        try:
            yield
        finally:
            self.online = True

    # ports.Remote

    def may_write(self, path: RemotePath | None = None) -> bool:
        return (
            self.writable_below != () if path is None else any(path.startswith(place) for place in self.writable_below)
        )

    def writable(self) -> tuple[str, ...] | None:
        return None if "/" in self.writable_below else tuple(f"{place}**" for place in self.writable_below)

    async def probe(self) -> None:
        await self._call("probe", RemotePath("/"), lambda: None)

    async def listing(self, directory: RemotePath) -> list[Entry]:
        return await self._call("listing", directory, lambda: self._children(directory))

    async def read(self, path: RemotePath, revision: Revision | None, start: int, length: int) -> Chunk:
        return await self._call("read", path, lambda: self._chunk(path, start, length))

    async def read_below(self, directory: RemotePath, most: int) -> list[tuple[RemotePath, Chunk]] | None:
        def below() -> list[tuple[RemotePath, Chunk]] | None:
            paths = sorted(path for path in self.files if is_below(path, directory))
            if sum(len(self.files[path].content) for path in paths) > most:
                return None
            return [(path, self._chunk(path, 0, len(self.files[path].content))) for path in paths]

        return await self._call("read_below", directory, below)

    async def put(self, upload: Upload) -> Receipt:
        return await self._call("put", upload.path, lambda: self._put(upload))

    async def put_many(self, uploads: Sequence[Upload]) -> list[Receipt | RemoteError]:
        self.batches.append(len(uploads))
        struck = self._begin("put_many", uploads[0].path)
        await self._before(struck)
        verdicts = [await self._verdict(upload) for upload in uploads]
        _after(struck)
        return verdicts

    async def delete(self, path: RemotePath, base: Base) -> Receipt:
        return await self._call("delete", path, lambda: self._delete(path, base))

    async def copy_metadata(self, upload: Upload, source: RemotePath, revision: Revision | None) -> Receipt:
        return await self._call(
            "copy_metadata", upload.path, lambda: self._put(upload, self._existing(source).metadata)
        )

    async def remove_directory(self, path: RemotePath) -> None:
        await self._call("remove_directory", path, lambda: self._remove_directory(path))

    async def provider_result(self, remote_op_id: str) -> ProviderResult:
        return await self._call("provider_result", RemotePath("/"), lambda: self._operation(remote_op_id))

    async def failed_at_provider(self) -> list[ProviderResult]:
        return await self._call("failed_at_provider", RemotePath("/"), self._failed_operations)

    async def replay(self, remote_op_id: str) -> None:
        await self._call("replay", RemotePath("/"), lambda: self._replay(remote_op_id))

    async def follow(self, told: Callable[[Told | None], None], going: Callable[[Feed], None]) -> None:
        if self._feed_at is None:
            self._feed_at = len(self._events)
        going(Feed.LIVE)
        while True:
            told(await self._next_change())

    def credential_changed(self) -> bool:
        changed, self._renewed = self._renewed, False
        return changed

    async def aclose(self) -> None:
        self.closed = True

    # calls

    async def _call(self, method: str, path: RemotePath, act: Callable[[], T]) -> T:
        struck = self._begin(method, path)
        await self._before(struck)
        result = act()
        return _after(struck, result)

    def _begin(self, method: str, path: RemotePath) -> list[Fault]:
        self.calls[method] += 1
        self.requests.append((method, path))
        return self._struck(method, path)

    def _struck(self, method: str, path: RemotePath) -> list[Fault]:
        return [fault for fault in self.faults if fault.strikes(method, path)]

    async def _before(self, struck: list[Fault]) -> None:
        await trio.lowlevel.checkpoint()
        for fault in struck:
            if fault.gate is not None:
                await fault.gate.wait()
        if not self.online:
            raise Unreachable("the remote is not there")
        if not self.authorized:
            raise Refusal(401, code="unauthorized", message="token expired")
        for fault in struck:
            if fault.error is not None and not fault.applied:
                raise fault.error()

    async def _verdict(self, upload: Upload) -> Receipt | RemoteError:
        known = self._identities.get(upload.key)
        if known is not None:
            return known
        struck = self._struck("put", upload.path)
        try:
            await self._before(struck)
            receipt = _after(struck, self._put(upload))
        except RemoteError as error:
            return error
        self._identities[upload.key] = receipt
        return receipt

    # effects

    def _children(self, directory: RemotePath) -> list[Entry]:
        found: dict[RemotePath, Entry] = {}
        for path, stored in self.files.items():
            if not is_below(path, directory):
                continue
            name, deeper, _ = path[len(directory.rstrip("/")) + 1 :].partition("/")
            child = join(directory, name)
            if deeper:
                found.setdefault(child, Entry(path=child, kind=Kind.DIRECTORY))
            else:
                found[child] = self._entry(child, stored)
        return [found[path] for path in sorted(found)]

    def _entry(self, path: RemotePath, stored: StoredFile) -> Entry:
        return Entry(
            path=path,
            kind=Kind.FILE,
            size=len(stored.content) if self.capabilities.exact_sizes else None,
            mtime=stored.mtime,
            revision=stored.revision,
            digest=digest_of(stored.content),
            content_type=stored.content_type,
        )

    def _chunk(self, path: RemotePath, start: int, length: int) -> Chunk:
        stored = self._existing(path)
        ranged = self.capabilities.ranges
        return Chunk(
            data=stored.content[start : start + length] if ranged else stored.content,
            start=start if ranged else 0,
            total=len(stored.content),
            revision=stored.revision,
            digest=digest_of(stored.content),
            content_type=stored.content_type,
        )

    def _put(self, upload: Upload, metadata: tuple[str, ...] | None = None) -> Receipt:
        self._check(upload.path, upload.base)
        content = upload.source.read(0, upload.source.size)
        before = self.files.get(upload.path)
        kept = before.metadata if before is not None else ()
        stored = self._store(upload.path, content, upload.content_type, metadata or kept)
        op_id = self._operate(upload.path, stored.revision)
        return Receipt(path=upload.path, revision=stored.revision, digest=upload.digest, remote_op_id=op_id)

    def _delete(self, path: RemotePath, base: Base) -> Receipt:
        self._existing(path)
        self._check(path, base)
        self.remove(path)
        self._counter += 1
        tombstone = Revision(f"rev_{self._counter}")
        return Receipt(path=path, revision=None, remote_op_id=self._operate(path, tombstone), tombstone=tombstone)

    def _operate(self, path: RemotePath, revision: Revision) -> str:
        op_id = f"op_{self._counter}"
        self.operations[op_id] = ProviderResult(
            remote_op_id=op_id, path=path, revision=revision, state=ProviderState.WAITING, said="pending"
        )
        return op_id

    def _operation(self, remote_op_id: str) -> ProviderResult:
        if remote_op_id not in self.operations:
            raise Refusal(404, code="not_found", message="operation not found")
        return self.operations[remote_op_id]

    def _failed_operations(self) -> list[ProviderResult]:
        return [found for found in self.operations.values() if found.said == "dead_lettered"]

    def _replay(self, remote_op_id: str) -> None:
        if self._operation(remote_op_id).said != "dead_lettered":
            raise Refusal(409, code="invalid_state", message="operation is not dead-lettered")
        self._resolve(remote_op_id, ProviderState.WAITING, "pending", "")

    def _remove_directory(self, path: RemotePath) -> None:
        if any(is_below(other, path) for other in self.files):
            raise Refusal(409, code="not_empty", message="the directory holds files")

    def _check(self, path: RemotePath, base: Base) -> None:
        stored = self.files.get(path)
        if stored is None and not base.absent:
            raise Refusal(404, code="not_found", message="file not found")
        if stored is not None and stored.revision != base.revision:
            raise Refusal(409, code="revision_conflict", message="revision conflict", current_revision=stored.revision)

    def _existing(self, path: RemotePath) -> StoredFile:
        if path not in self.files:
            raise Refusal(404, code="not_found", message="file not found")
        return self.files[path]

    def _store(self, path: RemotePath, content: bytes, content_type: str, metadata: tuple[str, ...]) -> StoredFile:
        self._counter += 1
        stored = StoredFile(
            content=content,
            revision=Revision(f"rev_{self._counter}"),
            mtime=self._now(),
            content_type=content_type,
            metadata=metadata,
        )
        self.files[path] = stored
        self._announce(Change(path=path, revision=stored.revision, digest=digest_of(content), at=stored.mtime))
        return stored

    # feed

    def _announce(self, change: Told | RemoteError | None) -> None:
        self._events.append(change)
        self._moved.set()
        self._moved = trio.Event()

    async def _next_change(self) -> Told | None:
        """The next entry of the feed; waits for one."""
        await self._before(self._begin("follow", RemotePath("/")))
        at = self._feed_at or 0
        while at >= len(self._events):
            await self._moved.wait()
        self._feed_at = at + 1
        change = self._events[at]
        if isinstance(change, RemoteError):
            raise change
        return change


def _after(struck: list[Fault], result: T = None) -> T:  # type: ignore[assignment]
    for fault in struck:
        if fault.error is not None and fault.applied:
            raise fault.error()
        if fault.receipt is not None and isinstance(result, Receipt):
            result = fault.receipt(result)  # type: ignore[assignment]
    return result


def _with_revision(receipt: Receipt, revision: Revision) -> Receipt:
    return Receipt(
        path=receipt.path,
        revision=revision,
        digest=receipt.digest,
        remote_op_id=receipt.remote_op_id,
        correlation_id=receipt.correlation_id,
        tombstone=receipt.tombstone,
    )
