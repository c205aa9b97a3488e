"""The directory of drafts and bodies: who has which name, and what sweeping may take.

Invariant: a draft's name goes only after the body that takes its place has its own; and where the program had asked for
fsync, only after that body and its name are on disk.

Threads: ``seal``, ``verify``, ``sync`` and ``sync_body`` may run in worker threads, everything else belongs to the
loop's.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from fsmount.errors import MachineLacks
from fsmount.model import Body, Digest, DraftId, SetApart
from fsmount.spool.apart import APART, found_apart
from fsmount.spool.draft import DraftFile
from fsmount.spool.files import BodyFile, digest_of, digest_of_open, fsync
from fsmount.spool.room import Room

_DRAFT_NAME = re.compile(r"[0-9a-f]{16}-[0-9a-f]{8}-[0-9a-f]{8}")
_BODY_NAME = re.compile(r"[0-9a-f]{64}")
_FOLDERS = tuple(f"{number:02x}" for number in range(256))


class FileSpool:
    """The spool in ``directory`` (made if it is not there), holding at most ``limit`` bytes; None: 80 % of the disk.

    ``lacking``: see ``Room``. Raises MachineLacks where the directory cannot be used. Bodies of equal content share one
    file: whoever removes one makes sure first that nothing else names its digest.
    """

    def __init__(self, directory: Path, limit: int | None = None, lacking: Callable[[], int] = lambda: 0) -> None:
        self.drafts = os.path.join(directory, "drafts")
        self._bodies = os.path.join(directory, "bodies")
        self._lock = threading.Lock()
        self._open: dict[DraftId, DraftFile] = {}
        self._synced: set[DraftId] = set()
        self._spared: set[Digest] = set()
        self._unsynced: set[Digest] = set()
        self._count = 0
        try:
            self._make_folders(os.fspath(directory))
            self.room = Room(os.fspath(directory), limit, sum(entry.stat().st_size for entry in self._files()), lacking)
            self._run = _new_run(os.listdir(self.drafts))
        except OSError as error:
            raise MachineLacks(
                f"cannot use the spool {directory}: {error.strerror}",
                hint="make this directory writable, or name another state directory with --state-dir",
            ) from error

    @property
    def used(self) -> int:
        """Bytes held that count against the limit: drafts included, bodies that were given up not."""
        return self.room.counted

    def set_aside(self, size: int) -> None:
        """So many of the bytes held do not count: they are bodies that were given up, which have their own limit."""
        self.room.aside = size

    @property
    def limit(self) -> int:
        """Bytes that may be held."""
        return self.room.limit

    def create(self) -> DraftFile:
        """A new, empty draft, on disk (not yet synced) when this returns. Raises OSError."""
        self._count += 1
        draft_id = DraftId(f"{self._run}-{self._count:08x}")
        fd = os.open(f"{self.drafts}/{draft_id}", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        draft = self._open[draft_id] = DraftFile(self, draft_id, fd, 0)
        return draft

    def open_draft(self, draft_id: DraftId) -> DraftFile:
        """A draft that is on disk and not open; raises FileNotFoundError."""
        fd = os.open(self._draft_path(draft_id), os.O_RDWR | os.O_CLOEXEC)
        draft = self._open[draft_id] = DraftFile(self, draft_id, fd, os.fstat(fd).st_size)
        return draft

    def seal(self, draft_id: DraftId, digest: Digest | None, size: int | None = None) -> Body:
        """Makes the draft a body; see ``Spool`` in ports. A given digest is believed: reckon it, never guess it.

        Raises FileNotFoundError for a draft that is not there (sealed already, or removed), else OSError.
        """
        path = self._draft_path(draft_id)
        draft = self._open.get(draft_id)
        if draft is not None:
            draft.frozen = True
        try:
            size = self._cut_to(size, path)
            digest = digest or digest_of(path)
            self._become(path, draft_id, digest, size)
        finally:
            if draft is not None:
                draft.frozen = draft.sealed is not None
        return Body(size=size, digest=digest)

    def _cut_to(self, size: int | None, path: str) -> int:
        there = os.stat(path).st_size
        if size is None or there <= size:
            return there
        os.truncate(path, size)
        self.room.give(there - size)
        return size

    def open(self, body: Body) -> BodyFile:
        """The body's bytes, sealed or still a draft; raises FileNotFoundError. Bytes past ``body.size`` do not show."""
        fd = self._descriptor(body)
        if body.draft is None and body.digest is not None:
            self._spared.discard(body.digest)
        return BodyFile(fd, min(body.size, os.fstat(fd).st_size))

    def verify(self, body: Body) -> bool:
        """Whether the file has the recorded length and digest (length alone where no digest is). Reads all of it."""
        try:
            fd = self._descriptor(body)
        except OSError:
            return False
        try:
            return os.fstat(fd).st_size == body.size and body.digest in (None, digest_of_open(fd))
        except OSError:
            return False
        finally:
            os.close(fd)

    def remove(self, body: Body) -> None:
        """Forgets a draft (where ``body.draft`` is set) or a sealed body; nothing happens if it is gone.

        An open draft can still be read and written; its bytes count until it closes. A body that took in another draft
        and was not opened since stays this once: the removal is its former op's, decided before the journal knew of the
        new one. Raises OSError.
        """
        if body.draft is not None:
            self._unlink(self._draft_path(body.draft), self._open.get(body.draft))
            self._synced.discard(body.draft)
        elif body.digest is not None and not self._keep_once(body.digest):
            self._unlink(self._body_path(body.digest))
            self._unsynced.discard(body.digest)

    def unnamed(self, digests: Iterable[Digest], drafts: Iterable[DraftId]) -> list[Body]:
        """Every body and draft that is not named; files that bear no name of ours are none."""
        named: set[str] = {*digests, *drafts}
        return [_body_at(entry) for entry in self._files() if entry.name not in named]

    def set_apart(self, bodies: Iterable[Body]) -> None:
        """Moves files that no row names to where nothing removes them. Raises OSError."""
        directory = os.path.join(os.path.dirname(self._bodies), APART)
        os.makedirs(directory, mode=0o700, exist_ok=True)
        for body in bodies:
            path = self._body_path(body.digest or Digest("")) if body.draft is None else self._draft_path(body.draft)
            os.rename(path, os.path.join(directory, os.path.basename(path)))
            self.room.give(body.size)

    def apart(self) -> tuple[SetApart, ...]:
        """What was set apart and nobody has removed since."""
        return found_apart(Path(os.path.dirname(self._bodies)))

    def lasting(self, body: Body) -> bool:
        """Whether the body was synced, or is a former run's: of those it is not known, so they are taken for synced."""
        if body.draft is not None and not self._may_last(body.draft):
            return False
        return body.draft is not None or body.digest not in self._unsynced

    def expect_sync(self, draft: DraftFile) -> bool:
        """Notes that ``draft`` is about to be fsynced, so that sealing keeps it so; False if it is sealed already."""
        with self._lock:
            if draft.sealed is None:
                self._synced.add(draft.draft_id)
            return draft.sealed is None

    def sync(self, body: Body) -> None:
        """Fsyncs a body, sealed or still a draft, and its name; nothing happens if it is gone. Raises OSError."""
        if body.draft is not None:
            with self._lock:
                # Noted first: sealing that comes between keeps it so.
                self._synced.add(body.draft)
            try:
                fsync(self._draft_path(body.draft))
                fsync(self.drafts)
            except FileNotFoundError:
                with self._lock:
                    self._synced.discard(body.draft)
        if body.digest is not None:
            self.sync_body(body.digest)

    def sync_body(self, digest: Digest) -> None:
        """Fsyncs a sealed body and its name; nothing happens if it is gone. Blocks; raises OSError."""
        path = self._body_path(digest)
        try:
            fsync(path)
        except FileNotFoundError:
            return
        fsync(os.path.dirname(path))
        self._unsynced.discard(digest)

    def closed(self, draft: DraftFile) -> None:
        """``draft`` has given its descriptor back."""
        with self._lock:
            if self._open.get(draft.draft_id) is draft:
                del self._open[draft.draft_id]
            if draft.unlinked:
                self.room.give(draft.size)

    def _become(self, path: str, draft_id: DraftId, digest: Digest, size: int) -> None:
        """Puts the body in the draft's place. A body of that name that is intact already stays: it may be on disk."""
        place = self._body_path(digest)
        spare = os.path.exists(place) and self.verify(Body(size=size, digest=digest))
        with self._lock:
            if spare and os.path.exists(place):
                self._spared.add(digest)
            else:
                spare = False
                os.rename(path, place)
            draft = self._open.get(draft_id)
            if draft is not None:
                draft.sealed = digest
            lasting = self._may_last(draft_id)
            if not lasting and not spare:
                self._unsynced.add(digest)
        if lasting:
            self.sync_body(digest)
        if spare:
            self._unlink(path, draft)
        self._synced.discard(draft_id)

    def _may_last(self, draft_id: DraftId) -> bool:
        """What an earlier run synced is not known: take it for synced."""
        return draft_id in self._synced or not draft_id.startswith(self._run)

    def _keep_once(self, digest: Digest) -> bool:
        with self._lock:
            spared = digest in self._spared
            self._spared.discard(digest)
            return spared

    def _descriptor(self, body: Body) -> int:
        """An open descriptor of the draft while there is one, else of the sealed body; raises FileNotFoundError."""
        if body.draft is not None:
            try:
                return os.open(self._draft_path(body.draft), os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                if body.digest is None:
                    raise
        return os.open(self._body_path(body.digest or Digest("")), os.O_RDONLY | os.O_CLOEXEC)

    def _draft_path(self, draft_id: DraftId) -> str:
        if not _DRAFT_NAME.fullmatch(draft_id):
            raise FileNotFoundError(errno.ENOENT, "no draft of the spool has such a name", draft_id)
        return f"{self.drafts}/{draft_id}"

    def _body_path(self, digest: Digest) -> str:
        if not _BODY_NAME.fullmatch(digest):
            raise FileNotFoundError(errno.ENOENT, "no body of the spool has such a name", digest)
        return f"{self._bodies}/{digest[:2]}/{digest}"

    def _make_folders(self, directory: str) -> None:
        for folder in (directory, self.drafts, self._bodies):
            os.makedirs(folder, mode=0o700, exist_ok=True)
        missing = sorted({*_FOLDERS} - {*os.listdir(self._bodies)})
        for name in missing:
            os.mkdir(f"{self._bodies}/{name}", mode=0o700)
        # Whatever is missing on the disk was made here or by a run that may not have come as far as this.
        for folder in (self._bodies, directory, os.path.dirname(directory)):
            fsync(folder)

    def _files(self) -> Iterator[os.DirEntry[str]]:
        """Every draft and body; whatever else lies there is not ours."""
        yield from _named(self.drafts, _DRAFT_NAME)
        for folder in _FOLDERS:
            bodies = _named(f"{self._bodies}/{folder}", _BODY_NAME)
            yield from (entry for entry in bodies if entry.name.startswith(folder))

    def _unlink(self, path: str, draft: DraftFile | None = None) -> None:
        """Removes one file; the bytes of an open draft are given back when it closes."""
        with self._lock:
            try:
                size = os.stat(path).st_size
                os.unlink(path)
            except FileNotFoundError:
                return
            if draft is not None and self._open.get(draft.draft_id) is draft:
                draft.unlinked = True
            else:
                self.room.give(size)


def _new_run(drafts: Iterable[str]) -> str:
    """The start of every draft name of this run: later than those of all drafts there, whatever the clock says."""
    newest = max((int(name[:16], 16) for name in drafts if _DRAFT_NAME.fullmatch(name)), default=0)
    return f"{max(time.time_ns(), newest + 1):016x}-{secrets.token_hex(4)}"


def _body_at(entry: os.DirEntry[str]) -> Body:
    size = entry.stat(follow_symlinks=False).st_size
    if _BODY_NAME.fullmatch(entry.name):
        return Body(size=size, digest=Digest(entry.name))
    return Body(size=size, digest=None, draft=DraftId(entry.name))


def _named(folder: str, name: re.Pattern[str]) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        yield from (entry for entry in entries if name.fullmatch(entry.name) and entry.is_file(follow_symlinks=False))
