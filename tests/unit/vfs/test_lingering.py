"""What a listing has shown can be read for a moment, whatever becomes of it."""

from __future__ import annotations

import errno
import json

import pytest

from fsmount.model import ABSENT, Receipt, RemotePath, Revision
from fsmount.vfs.control import lingering
from tests.support.relay import Relay, refused


def deliver(relay: Relay) -> None:
    """Everything is acknowledged, and its bytes are removed."""
    journal = relay.mounted.journal
    for claim in journal.claim(100):
        journal.acknowledge(claim, Receipt(path=claim.op.path, revision=Revision("r1")), relay.mounted.answered())
    for body in journal.released():
        relay.mounted.spooled.remove(body)


def test_a_delivered_op_that_was_listed_is_readable_and_not_listed_again(relay: Relay) -> None:
    op_id = relay.mounted.save("/a/x", b"bytes")
    assert (relay.ls("pending"), relay.ls("content")) == ([f"{op_id}.json"], [op_id])
    deliver(relay)
    assert relay.ls("pending") == relay.ls("content") == []
    shown = relay.read(f"pending/{op_id}.json")
    assert json.loads(shown)["opId"] == op_id
    assert relay.tree.getattr(relay.ino(f"pending/{op_id}.json")).size == len(shown)
    assert relay.read(f"content/{op_id}") == b"bytes"
    relay.mounted.clock.advance(lingering.LINGER + 0.1)
    assert not relay.exists(f"pending/{op_id}.json")
    assert not relay.exists(f"content/{op_id}")


def test_what_was_not_listed_is_gone_at_once(relay: Relay) -> None:
    op_id = relay.mounted.save("/a/x")
    relay.ls("content")
    assert relay.exists(f"pending/{op_id}.json")
    deliver(relay)
    assert not relay.exists(f"pending/{op_id}.json")


async def test_what_moved_on_is_readable_as_it_was_and_cannot_be_moved(relay: Relay) -> None:
    op_id = relay.mounted.dead("/a/x")
    relay.ls("dead-letter")
    await relay.mv(f"dead-letter/{op_id}.json", "retry/")
    assert relay.ls("dead-letter") == []
    assert json.loads(relay.read(f"dead-letter/{op_id}.json"))["state"] == "dead-letter"
    assert json.loads(relay.read(f"pending/{op_id}.json"))["state"] == "pending"
    with refused(errno.ENOENT):
        await relay.mv(f"dead-letter/{op_id}.json", "retry/")


def test_a_reader_keeps_the_bytes_after_they_were_forgotten(relay: Relay) -> None:
    op_id = relay.mounted.save("/a/x", b"bytes")
    relay.ls("content")
    deliver(relay)
    first, second = (relay.tree.open(relay.ino(f"content/{op_id}")) for _ in range(2))
    relay.mounted.clock.advance(lingering.LINGER + 0.1)
    relay.ls("content")
    assert relay.tree.read(first, 0, 100) == b"bytes"
    relay.tree.release(first)
    assert relay.tree.read(second, 0, 100) == b"bytes"
    relay.tree.release(second)
    assert relay.tree._ops._lingering._gone == {}


def test_only_so_many_are_kept(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [relay.mounted.save(f"/a/{number}") for number in range(20)]
    relay.ls("pending")
    monkeypatch.setattr(lingering, "_KEPT", 5)
    deliver(relay)
    assert [relay.exists(f"pending/{op_id}.json") for op_id in ids] == [False] * 15 + [True] * 5


def test_the_bytes_of_a_draft_are_those_of_the_moment_of_opening(relay: Relay) -> None:
    mounted = relay.mounted
    draft = mounted.spooled.create()
    mounted.journal.begin_draft(draft.draft_id, RemotePath("/a/x"), ABSENT)
    draft.write(0, b"twelve bytes")
    op_id = mounted.journal.put(
        draft.draft_id, RemotePath("/a/x"), ABSENT, draft.body, content_type="text/plain", mtime=0.0, still_open=True
    )
    ino = relay.ino(f"content/{op_id}")
    handle = relay.tree.open(ino)
    draft.truncate(3)
    assert relay.tree.getattr(ino).size == 12
    assert relay.tree.read(handle, 0, 100) == b"twelve bytes"
    relay.tree.release(handle)
    assert relay.tree.getattr(ino).size == 3
    draft.write(3, b"more than was journalled")
    assert len(relay.read(f"content/{op_id}")) == 12
    draft.close()
