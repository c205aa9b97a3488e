"""Rows of relayfile's tree as ``Entry``.

Invariant: a size is given only where it is exact, and every entry's name is one that a local filesystem can hold.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from fsmount.model import FILE_AND_DIRECTORY, Entry, Kind, Problem, RemotePath, Revision, join
from fsmount.remote.content import digest_of
from fsmount.wire.relayfile import TreeEntry

LONGEST_NAME = 255
_EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def entries(rows: Iterable[TreeEntry], directory: RemotePath, *, exact: bool) -> tuple[list[Entry], list[Problem]]:
    """The children of ``directory``, one for each name, a file before a directory of the same name; and what of it is
    not shown.

    ``exact``: the server announced ``byteSize``.
    """
    found: dict[str, Entry] = {}
    kinds: set[tuple[str, Kind]] = set()
    problems: dict[str, Problem] = {}
    prefix = "/" if directory == "/" else directory + "/"
    for row in rows:
        if not row.path.startswith(prefix):
            continue
        name, deeper, _ = row.path.removeprefix(prefix).partition("/")
        unshown = unshowable(name)
        if unshown is not None:
            problems[name] = Problem(path=row.path, why=unshown)
        elif deeper or row.type != "file":
            found.setdefault(name, Entry(path=join(directory, name), kind=Kind.DIRECTORY))
            kinds.add((name, Kind.DIRECTORY))
        else:
            found[name] = _file(row, exact=exact)
            kinds.add((name, Kind.FILE))
    for name, entry in found.items():
        if entry.kind is Kind.FILE and (name, Kind.DIRECTORY) in kinds:
            problems[name] = Problem(path=entry.path, shown_as=entry.path, why=FILE_AND_DIRECTORY)
    return list(found.values()), [problems[name] for name in sorted(problems)]


def unshowable(name: str) -> str | None:
    """Why no local directory can hold ``name``, or the file routes cannot ask for it (they trim the path)."""
    if not name:
        return "a path with an empty name"
    if name in (".", ".."):
        return f"{name!r} cannot be a local name"
    if "/" in name or "\0" in name:
        return "no text, or it holds a zero byte, which no local name can"
    if name != name.rstrip():
        return "white space at the end of a name is lost in requests to the remote"
    try:
        return None if len(name.encode()) <= LONGEST_NAME else f"longer than {LONGEST_NAME} bytes"
    except UnicodeEncodeError:
        return "not valid UTF-8"


def _file(row: TreeEntry, *, exact: bool) -> Entry:
    # The row's `size` counts base64 letters for binary files and does not say which are; nothing is nothing in both.
    digest = digest_of(row.content_hash)
    size = 0 if digest == _EMPTY else None
    return Entry(
        path=RemotePath(row.path),
        kind=Kind.FILE,
        size=row.byte_size if exact and row.byte_size is not None else size,
        mtime=epoch(row.updated_at),
        revision=Revision(row.revision) if row.revision else None,
        digest=digest,
    )


def epoch(text: str | None) -> float:
    """UTC epoch seconds of an RFC 3339 time with any number of fraction digits; 0 where there is none."""
    try:
        moment = datetime.fromisoformat(text or "")
        return max(0.0, (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        return 0.0
