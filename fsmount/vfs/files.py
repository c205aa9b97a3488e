"""Open files: read, write, truncate, flush, fsync, release.

Invariant: no byte is accepted that could not be delivered: the whole base is in the draft before the first write
returns. A flush that returned has its op in the journal. Close never waits for the remote.

Concurrency: ``node.busy`` is held while a draft is begun or journalled; a write into a draft that stands is one
synchronous stretch, and so is freezing it.
"""

from __future__ import annotations

import errno

import trio
from msgspec.structs import replace

from fsmount.errors import FileError
from fsmount.model import ABSENT, Base, Body, DraftId, Kind, LocalNode, OpId
from fsmount.ports import Clock, EventLog, KernelCache, Spool
from fsmount.vfs.copying import INLINE
from fsmount.vfs.drafts import Drafts
from fsmount.vfs.handles import Handle, OpenDraft
from fsmount.vfs.inodes import Node
from fsmount.vfs.lasting import sync_what_replaces
from fsmount.vfs.overlay import Ledger
from fsmount.vfs.shown import AtRemote, Merged, Unsent
from fsmount.vfs.tree import Tree
from fsmount.vfs.writethrough import WriteThrough
from fsmount.vfs.xattrs import content_type

TOUCH = 1.0
"""Seconds between two words to the journal that a file is still being written."""


class Files:
    """Handles and drafts. Handle numbers are small and never reused while open."""

    def __init__(
        self, tree: Tree, ledger: Ledger, spool: Spool, kernel: KernelCache, clock: Clock, log: EventLog
    ) -> None:  # fmt: skip
        self._tree = tree
        self._ledger = ledger
        self._spool = spool
        self._clock = clock
        self._log = log
        self.drafts = Drafts(tree, ledger, spool, kernel, clock, log)
        self._handles: dict[int, Handle] = {}
        self._next = 1
        self.through: WriteThrough | None = None
        """With it, a close waits until what it journalled is delivered."""
        self.closing = False
        """The mount is being unmounted: no file is opened for writing any more."""

    # opening and closing

    def handle(self, number: int) -> Handle:
        """Raises FileError EBADF."""
        try:
            return self._handles[number]
        except KeyError:
            raise FileError(errno.EBADF, f"handle {number}") from None

    async def open(self, node: Node, *, writable: bool, truncate: bool) -> tuple[int, bool]:
        """A handle, and whether the kernel may keep the pages it has of the file."""
        if node.kind is not Kind.FILE:
            raise FileError(errno.EISDIR, node.name)
        if writable and self.closing:
            raise FileError(errno.EROFS, "the mount is being unmounted")
        if node.draft is None and not node.detached:
            await self._tree.refresh(node)
            if self._tree.outdated(node):
                raise self.drafts.changed_elsewhere(node)
        if node.overtaken:
            raise self.drafts.changed_elsewhere(node)
        number = self._add(node, writable)
        handle = self._handles[number]
        try:
            if truncate and writable:
                await self._truncate(handle, 0)
        except BaseException:
            await self.release(number)
            raise
        handle.version = node.shown.content if node.shown is not None and node.draft is None else None
        return number, handle.version is not None and handle.version == node.kept

    def create(self, node: Node, base: Base, attributes: dict[str, int], *, local: bool) -> int:
        """A handle on a new, empty file that stands at ``node``; its draft is in the journal.

        ``attributes`` are recorded with its first flush.
        """
        number = self._add(node, writable=True)
        try:
            draft = self.drafts.begin(node, base, local=local)
        except BaseException:
            del self._handles[number]
            node.handles -= 1
            raise
        self.drafts.stand(node, draft)
        self._joined(self._handles[number], draft)
        draft.attributes = attributes
        draft.dirty = True
        return number

    def _add(self, node: Node, writable: bool) -> int:
        number, self._next = self._next, self._next + 1
        self._handles[number] = Handle(node, writable=writable)
        node.handles += 1
        return number

    async def release(self, number: int) -> None:
        """The handle is gone, whatever fails. What it wrote was journalled by flush; if no flush came, it is now."""
        handle = self._handles.pop(number)
        node = handle.node
        try:
            if handle.wrote and node.draft is not None:
                await self._write_down(node)
        finally:
            node.handles -= 1
            if not node.handles and isinstance(handle.version, AtRemote):
                self._tree.contents.closed(handle.version)
            self._tree.inodes.settle(node)

    async def _write_down(self, node: Node) -> None:
        """The last words of a writer. What cannot be journalled stays a draft: the next start finds its bytes."""
        journalled = False
        try:
            await self.journal(node)
            journalled = True
            await self._know_digest(node)
        except (OSError, FileError) as error:
            self._log.note("file.unknown", f"closed, and not recorded whole: {error}", path=self._tree.path(node))
            if not journalled:
                raise
        finally:
            if node.draft is not None:
                self._leave(node, node.draft, journalled=journalled)

    def _leave(self, node: Node, draft: OpenDraft, *, journalled: bool) -> None:
        """One writer fewer; after the last one the draft is the op's body and nothing else."""
        draft.writers -= 1
        if draft.writers > 0:
            return
        self._tree.closed(node)
        if node.detached:
            node.orphan = draft.draft
        else:
            draft.draft.close()
        node.draft = None
        if journalled:
            self._ledger.end_draft(draft.draft.draft_id)

    # reading

    async def read(self, number: int, offset: int, size: int) -> bytes:
        """A checkpoint only where the bytes are not on this machine. Raises FileError ESTALE, RemoteError."""
        handle = self.handle(number)
        node = handle.node
        if node.kept is not handle.version:
            self._keep_pages(handle)
        local = node.draft.draft if node.draft is not None else node.orphan
        if local is not None:
            return local.read(offset, size)
        content = node.shown.content if node.shown is not None else None
        if isinstance(content, Unsent):
            return (await self.drafts.unsent(node, content.body)).read(offset, size)
        if content is None:
            raise FileError(errno.EIO, f"{self._tree.path(node)} has no content")
        length = node.shown.size if node.shown is not None else None
        if length is not None and offset >= length:
            return b""
        wanted = size if length is None else min(size, length - offset)
        return await self._tree.fetched(
            node, content, lambda at: self._tree.contents.read(at, offset, wanted, anew=False)
        )

    @staticmethod
    def _keep_pages(handle: Handle) -> None:
        """A first read shows that the kernel has carried out the open, and so has no pages of another version."""
        node = handle.node
        if node.draft is None and node.shown is not None and node.shown.content == handle.version:
            node.kept = handle.version

    # writing

    async def write(self, number: int, offset: int, content: bytes) -> int:
        """Bytes taken: all of them.

        The first write brings the whole base into the draft. Raises OSError (ENOSPC, EDQUOT), FileError EFBIG.
        """
        self._refuse_too_large(number, offset + len(content))
        draft = await self._draft(self.handle(number))
        taken = draft.draft.write(offset, content)
        self._written(draft)
        return taken

    async def truncate(self, node: Node, size: int, number: int | None) -> None:
        """Cuts or lengthens a file; without a handle (``truncate(2)``) the journal has the result when this returns."""
        if number is not None:
            self._refuse_too_large(number, size)
            await self._truncate(self.handle(number), size)
            return
        if node.overtaken:
            raise self.drafts.changed_elsewhere(node)
        number = self._add(node, writable=True)
        try:
            self._refuse_too_large(number, size)
            await self._truncate(self._handles[number], size)
        finally:
            await self.release(number)

    def _refuse_too_large(self, number: int, size: int) -> None:
        """Raises FileError EFBIG for a length that the remote is known not to take."""
        node, limit = self.handle(number).node, self._tree.listings.size_limit
        if limit is not None and size > limit and not self._tree.is_local(node):
            raise FileError(errno.EFBIG, f"{self._tree.path(node)}: the remote takes at most {limit} bytes")

    async def _truncate(self, handle: Handle, size: int) -> None:
        draft = await self._draft(handle, empty=size == 0)
        draft.draft.truncate(size)
        self._written(draft)

    def _written(self, draft: OpenDraft) -> None:
        draft.dirty = True
        draft.mtime = self._clock.now()
        now = self._clock.monotonic()
        if draft.journalled and now - draft.touched_at > TOUCH:
            draft.touched_at = now
            self._ledger.touch_draft(draft.draft.draft_id)

    async def _draft(self, handle: Handle, *, empty: bool = False) -> OpenDraft:
        """The file's draft, ready to be written, with the handle among its writers."""
        node = handle.node
        if node.draft is None or node.draft.frozen:
            async with node.busy:
                draft = node.draft
                if draft is None:
                    draft = await self.drafts.start(node, empty=empty)
                elif draft.frozen:
                    # A writer from now on: else the last of the others would close what is being copied.
                    self._joined(handle, draft)
                    draft = await self.drafts.replace_frozen(node, draft, empty=empty)
        else:
            draft = node.draft
        self._joined(handle, draft)
        return draft

    def _joined(self, handle: Handle, draft: OpenDraft) -> None:
        if not handle.wrote:
            handle.wrote = True
            draft.writers += 1

    # promising

    async def flush(self, number: int) -> None:
        """What was written is in the journal when this returns. Waits for the remote only where asked to
        (``through``).
        """
        handle = self.handle(number)
        node = handle.node
        if node.draft is not None:
            await self.journal(node)
        if self.through is not None and handle.wrote and not node.detached and not self._tree.is_local(node):
            await self.through.delivered(self._tree.path(node))

    async def fsync(self, number: int) -> None:
        """As flush, and on the disk: body, directory and journal. The journal comes last, so that it never names bytes
        that a power failure could take.
        """
        node = self.handle(number).node
        if node.draft is not None and not node.detached:
            await trio.to_thread.run_sync(node.draft.draft.sync)
        await self.flush(number)
        if node.detached:
            return
        record = self._ledger.shown(self._tree.path(node)) if node.draft is None else None
        if record is not None and record.op.body is not None:
            await trio.to_thread.run_sync(self._spool.sync, record.op.body)
        await trio.to_thread.run_sync(self._ledger.durable)

    async def journal(self, node: Node) -> None:
        """Records what the draft holds, if it was written since the last time."""
        if self._unrecorded(node) is None:
            return
        async with node.busy:
            draft = self._unrecorded(node)
            if draft is None:
                return
            draft.dirty = False
            try:
                body = await self._body(draft)
                await sync_what_replaces(self._ledger, self._spool, self._tree.path(node), node.shown, body)
                if self._recordable(node, draft):
                    self._record(node, draft, body)
            except BaseException:
                draft.dirty = True
                raise

    async def _know_digest(self, node: Node) -> None:
        """Before the last writer leaves: the journal knows the digest, also of what was not written front to back.

        From then on the op may be sent by itself, and only by the digest is it known after a crash whether its bytes
        are those that were written. Nobody waits for this: close(2) has returned. What was written meanwhile is another
        writer's, who does the same.
        """
        draft = node.draft
        if draft is None or draft.writers > 1 or not self._recordable(node, draft) or draft.draft.body.digest:
            return
        async with node.busy:
            small = draft.draft.size <= INLINE
            body = draft.draft.hashed() if small else await trio.to_thread.run_sync(draft.draft.hashed)
            if node.draft is draft and not draft.dirty and self._recordable(node, draft):
                self._record(node, draft, body)

    def _unrecorded(self, node: Node) -> OpenDraft | None:
        """The node's draft if it holds something that the journal does not know and has to."""
        draft = node.draft
        return draft if draft is not None and draft.dirty and self._recordable(node, draft) else None

    def _recordable(self, node: Node, draft: OpenDraft) -> bool:
        """Not where the file has no name any more, nor where its op is being sent with all that was written."""
        return not node.detached and not draft.frozen

    async def _body(self, draft: OpenDraft) -> Body:
        if draft.draft.size <= INLINE:
            return draft.draft.body
        return await trio.to_thread.run_sync(lambda: draft.draft.body)

    def _record(self, node: Node, draft: OpenDraft, body: Body) -> None:
        path = self._tree.path(node)
        if draft.local:
            before = self._ledger.node(path) or LocalNode(path=path)
            kept = replace(before, kind=Kind.FILE, mtime=draft.mtime, body=body, **draft.attributes)
            self._ledger.keep(kept)
            draft.attributes = {}
            self._show(node, draft, body, ABSENT, op_id=None)
            return
        base = node.shown.base if node.shown is not None else ABSENT
        with self._ledger.transaction():
            op_id = self._ledger.put(
                draft.draft.draft_id,
                path,
                base,
                body,
                content_type=content_type(self._ledger, path),
                mtime=draft.mtime,
                still_open=True,
            )
            if draft.attributes:
                kept = self._ledger.node(path) or LocalNode(path=path)
                self._ledger.keep(replace(kept, **draft.attributes))
        draft.attributes = {}
        draft.journalled = True
        self._tree.listings.touched(path)
        self._show(node, draft, body, self._ledger.inherited(path) or base, op_id=op_id)

    def _show(self, node: Node, draft: OpenDraft, body: Body, base: Base, *, op_id: OpId | None) -> None:
        shown = node.shown
        if shown is None:
            raise FileError(errno.ESTALE, node.name)
        self._tree.show(
            node,
            Merged(
                kind=Kind.FILE, size=body.size, mode=shown.mode, uid=shown.uid, gid=shown.gid, mtime=draft.mtime,
                content=Unsent(body), base=base, op_id=op_id, local=op_id is None,
            ),
        )  # fmt: skip

    # sealing

    def freeze(self, draft_id: DraftId) -> Body | None:
        """See ports.Overlay: the uploader seals the draft now. Not a checkpoint.

        What was written since the last flush goes with it; the draft is not dirty any more.
        """
        for node in self._tree.drafts():
            draft = node.draft
            if draft is not None and draft.draft.draft_id == draft_id:
                draft.frozen = True
                draft.dirty = False
                body = draft.draft.body if draft.draft.size <= INLINE else None
                return body or Body(size=draft.draft.size, digest=None, draft=draft_id)
        return None

    def unlink(self, node: Node) -> None:
        """The name is about to go: the handles keep the bytes, the journal loses the draft."""
        draft = node.draft
        if draft is not None:
            draft.frozen = draft.frozen or draft.journalled
            self._ledger.end_draft(draft.draft.draft_id)
            self._tree.closed(node)

    def keep_here(self, node: Node) -> None:
        """The file has become litter while it is written; what it holds was copied, and the next write makes a litter
        draft.
        """
        if node.draft is not None:
            node.draft.local = node.draft.frozen = True
            self._tree.writing(node)
