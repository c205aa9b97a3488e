"""Rows of relayfile's tree as ``Entry``.

Invariant: a size is given only where it is exact, and every entry's name is one that a local filesystem can hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from fsmount.model import Digest, Entry, Kind, RemotePath, Revision, join
from fsmount.wire.relayfile import TreeEntry

LONGEST_NAME = 255
_EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def entries(
    rows: Iterable[TreeEntry], directory: RemotePath, *, exact: bool, skipped: Callable[[str], None]
) -> list[Entry]:
    """The children of ``directory``, one for each name, a file before a directory of the same name.

    ``exact``: the server announced ``byteSize``. ``skipped`` is told of each name that cannot be shown.
    """
    found: dict[str, Entry] = {}
    prefix = "/" if directory == "/" else directory + "/"
    for row in rows:
        if not row.path.startswith(prefix):
            continue
        name, deeper, _ = row.path.removeprefix(prefix).partition("/")
        if not showable(name):
            skipped(name)
        elif deeper or row.type != "file":
            found.setdefault(name, Entry(path=join(directory, name), kind=Kind.DIRECTORY))
        else:
            found[name] = _file(row, exact=exact)
    return list(found.values())


def showable(name: str) -> bool:
    """Whether a local directory can hold ``name``, and the file routes can ask for it (they trim the path)."""
    if name in ("", ".", "..") or "/" in name or "\0" in name or name != name.rstrip():
        return False
    try:
        return len(name.encode()) <= LONGEST_NAME
    except UnicodeEncodeError:
        return False


def _file(row: TreeEntry, *, exact: bool) -> Entry:
    # The row's `size` counts base64 letters for binary files and does not say which are; nothing is nothing in both.
    size = 0 if row.content_hash == _EMPTY else None
    return Entry(
        path=RemotePath(row.path),
        kind=Kind.FILE,
        size=row.byte_size if exact and row.byte_size is not None else size,
        mtime=epoch(row.updated_at),
        revision=Revision(row.revision) if row.revision else None,
        digest=Digest(row.content_hash) if row.content_hash else None,
    )


def epoch(text: str | None) -> float:
    """UTC epoch seconds of an RFC 3339 time with any number of fraction digits; 0 where there is none."""
    try:
        moment = datetime.fromisoformat(text or "")
        return max(0.0, (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        return 0.0
