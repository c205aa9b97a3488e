"""Listings of former runs: what was kept is recalled, or nothing is."""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fsmount.cache import KnownListings
from fsmount.cache.known import MOST_NAMES
from fsmount.model import Entry, Kind, RemotePath, Revision

HERE = RemotePath("/here")
ENTRIES = [
    Entry(path=RemotePath("/here/f"), kind=Kind.FILE, size=3, mtime=1.5, revision=Revision("r1")),
    Entry(path=RemotePath("/here/d"), kind=Kind.DIRECTORY),
]


def test_what_was_kept_is_recalled_by_the_next_run(tmp_path: Path) -> None:
    known = KnownListings(tmp_path, "remote")
    assert known.recall(HERE) is None
    known.keep({HERE: ENTRIES[:1]}, 100.0)
    known.keep({HERE: ENTRIES}, 200.0)
    known.close()
    assert KnownListings(tmp_path, "remote").recall(HERE) == (ENTRIES, 200.0)


def test_what_another_remote_left_goes(tmp_path: Path) -> None:
    known = KnownListings(tmp_path, "remote")
    known.keep({HERE: ENTRIES}, 100.0)
    known.close()
    assert KnownListings(tmp_path, "another").recall(HERE) is None


def test_what_cannot_be_written_down_is_left_out(tmp_path: Path) -> None:
    known = KnownListings(tmp_path, "remote")
    many = [Entry(path=RemotePath(f"/many/{n}"), kind=Kind.FILE) for n in range(MOST_NAMES + 1)]
    odd = [Entry(path=RemotePath("/odd/\udcff"), kind=Kind.FILE)]
    known.keep({RemotePath("/many"): many, RemotePath("/odd"): odd, HERE: ENTRIES}, 1.0)
    assert [known.recall(RemotePath(name)) is None for name in ("/many", "/odd", "/here")] == [True, True, False]


@pytest.mark.parametrize("damage", [b"", b"garbage" * 999])
def test_a_file_that_cannot_be_used_gives_way_to_an_empty_one(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "listings.db").write_bytes(damage)
    known = KnownListings(tmp_path, "remote")
    known.keep({HERE: ENTRIES}, 1.0)
    assert known.recall(HERE) == (ENTRIES, 1.0)


def test_a_flipped_bit_is_nothing(tmp_path: Path) -> None:
    known = KnownListings(tmp_path, "remote")
    known.keep({HERE: ENTRIES}, 1.0)
    known.close()
    with sqlite3.connect(tmp_path / "listings.db") as database:
        (entries,) = database.execute("SELECT entries FROM listing").fetchone()
        database.execute("UPDATE listing SET entries = ?", (entries.replace(b"/here/f", b"/here/g"),))
    database.close()
    assert KnownListings(tmp_path, "remote").recall(HERE) is None


def test_a_directory_that_is_gone_is_nobodys_trouble(tmp_path: Path) -> None:
    known = KnownListings(tmp_path / "none", "remote")
    known.keep({HERE: ENTRIES}, 1.0)
    assert known.recall(HERE) is None
    known.close()


def test_a_disk_that_takes_no_writes_keeps_no_reader_waiting(tmp_path: Path) -> None:
    known = KnownListings(tmp_path, "remote")
    known.keep({HERE: ENTRIES}, 1.0)
    stalled, goes_on = threading.Event(), threading.Event()

    def stall() -> int:
        stalled.set()
        return not goes_on.wait(10)

    assert known._writer is not None
    known._writer.set_progress_handler(stall, 1)
    with ThreadPoolExecutor() as threads:
        keeping = threads.submit(known.keep, {HERE: ENTRIES[:1]}, 2.0)
        assert stalled.wait(5)
        assert known.has(HERE)
        assert known.recall(HERE) == (ENTRIES, 1.0)
        assert not keeping.done()
        goes_on.set()
    assert known.recall(HERE) == (ENTRIES[:1], 2.0)
    known.close()
