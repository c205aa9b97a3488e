"""What a listed file says of itself, made when it is asked for."""

from __future__ import annotations

from fsmount.model import Base, Digest, Entry, Kind, RemotePath, Revision
from fsmount.vfs.shown import AtRemote, Listed, Merged, Usual, altered, measured

ENTRY = Entry(path=RemotePath("/a/f"), kind=Kind.FILE, mtime=12.5, revision=Revision("rev_1"), digest=Digest("d" * 64))
LISTED = Listed(ENTRY, Usual(0o644, 7, 8))
MERGED = Merged(
    kind=Kind.FILE, size=None, mode=0o644, uid=7, gid=8, mtime=12.5,
    content=AtRemote(ENTRY.path, Revision("rev_1"), ENTRY.digest), base=Base(Revision("rev_1"), ENTRY.digest),
)  # fmt: skip


def test_a_listed_file_reads_as_what_would_be_merged_of_it() -> None:
    assert altered(LISTED) == MERGED


def test_its_size_is_all_that_a_measure_changes() -> None:
    assert altered(measured(LISTED, 3)) == measured(MERGED, 3) == altered(LISTED, size=3)
