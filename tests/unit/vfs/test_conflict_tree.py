"""`conflict/OP/{base,mine,theirs}` and `force/`, over a real journal, spool and cache."""

from __future__ import annotations

import errno
import json

from fsmount.model import (
    Base,
    Body,
    Chunk,
    Digest,
    Kind,
    OpId,
    Reason,
    RemotePath,
    Revision,
    State,
    Theirs,
)
from tests.support.relay import Relay, refused

PATH = RemotePath("/a/x")
BASE = Base(Revision("r1"), Digest("d1"))


def conflict(
    relay: Relay, *, theirs: bytes | None = b"theirs", reason: Reason = Reason.CONFLICT, mine: bytes = b"mine"
) -> OpId:
    """A put at ``BASE`` that met another version."""
    mounted = relay.mounted
    op_id = mounted.journal.put(
        None, PATH, BASE, body_of(relay, mine), content_type="text/plain", mtime=mounted.now(), still_open=False
    )
    body = None if theirs is None else body_of(relay, theirs)
    met = Theirs(base=Base(Revision("r2"), Digest("d2")), body=body)
    claim = mounted.claim(op_id)
    mounted.journal.bury(claim, reason, "changed there", mounted.answered(409), charged=True, theirs=met)
    return op_id


def body_of(relay: Relay, content: bytes) -> Body:
    draft = relay.mounted.spooled.create()
    draft.write(0, content)
    body = relay.mounted.spooled.seal(draft.draft_id, draft.body.digest)
    draft.close()
    return body


def cached(relay: Relay, content: bytes, held: int | None = None) -> None:
    """The base was read before; ``held`` bytes of it are still there."""
    data = content if held is None else content[:held]
    chunk = Chunk(data=data, start=0, total=len(content), revision=Revision("r1"), digest=None)
    relay.cache.store(PATH, "r1 d1", chunk)


def test_the_three_versions_with_their_sizes(relay: Relay) -> None:
    cached(relay, b"the base")
    op_id = conflict(relay)
    assert relay.ls("conflict") == [op_id]
    assert relay.ls(f"conflict/{op_id}") == ["base", "mine", "theirs"]
    for version, content in (("base", b"the base"), ("mine", b"mine"), ("theirs", b"theirs")):
        path = f"conflict/{op_id}/{version}"
        assert relay.read(path) == content
        attr = relay.tree.getattr(relay.ino(path))
        assert (attr.size, attr.kind, attr.mode) == (len(content), Kind.FILE, 0o400)
    assert relay.tree.getattr(relay.ino(f"conflict/{op_id}")).mode == 0o700
    assert relay.tree.getattr(relay.ino("conflict")).nlink == 3


def test_only_what_is_known_is_listed(relay: Relay) -> None:
    op_id = conflict(relay, theirs=None)
    assert relay.ls(f"conflict/{op_id}") == ["mine"]
    for version in ("base", "theirs", "other"):
        assert not relay.exists(f"conflict/{op_id}/{version}")


def test_a_base_of_which_the_cache_lost_a_part_is_not_shown(relay: Relay) -> None:
    cached(relay, bytes(300_000), held=131_072)
    op_id = conflict(relay)
    assert relay.ls(f"conflict/{op_id}") == ["mine", "theirs"]


def test_other_dead_letters_are_no_conflicts(relay: Relay) -> None:
    op_id = relay.mounted.dead("/b/x")
    assert relay.ls("conflict") == []
    assert not relay.exists(f"conflict/{op_id}")
    assert not relay.exists(f"conflict/{op_id}.json")


def test_it_is_two_directories_deep_and_no_deeper(relay: Relay) -> None:
    op_id = conflict(relay)
    directory = relay.ino(f"conflict/{op_id}")
    with refused(errno.EISDIR):
        relay.tree.open(directory)
    with refused(errno.ENOTDIR):
        relay.tree.listdir(relay.ino(f"conflict/{op_id}/mine"))
    with refused(errno.ENOTDIR):
        relay.tree.lookup(relay.ino(f"conflict/{op_id}/mine"), "x")


async def test_mine_wins_by_force(relay: Relay) -> None:
    op_id = conflict(relay)
    await relay.mv(f"dead-letter/{op_id}.json", "force/")
    record = relay.mounted.journal.record(op_id)
    assert record is not None
    assert (record.state, record.forced, record.op.base.revision) == (State.PENDING, True, "r2")
    assert relay.ls("conflict") == relay.ls("force") == []
    assert relay.exists(f"force/{op_id}.json"), "mv looks there once more"
    assert json.loads(relay.read(f"pending/{op_id}.json"))["state"] == "pending"


async def test_only_a_conflict_can_be_forced(relay: Relay) -> None:
    op_id = relay.mounted.dead("/b/x")
    with refused(errno.EPERM):
        await relay.mv(f"dead-letter/{op_id}.json", "force/")
    held = relay.mounted.hold("/c/x")
    with refused(errno.EPERM):
        await relay.mv(f"held/{held}.json", "force/")
    assert relay.log_has(f"verb.refused {op_id} /b/x")


async def test_a_version_cannot_be_moved(relay: Relay) -> None:
    op_id = conflict(relay)
    with refused(errno.EPERM):
        await relay.mv(f"conflict/{op_id}/mine", "discarded/mine")
    with refused(errno.EPERM):
        await relay.mv(f"conflict/{op_id}", "discarded/")


async def test_a_held_op_is_listed_let_go_or_given_up(relay: Relay) -> None:
    one, other = relay.mounted.hold("/a/1"), relay.mounted.hold("/a/2")
    assert relay.ls("held") == [f"{one}.json", f"{other}.json"]
    assert json.loads(relay.read(f"held/{one}.json"))["state"] == "held"
    await relay.mv(f"held/{one}.json", "retry/")
    await relay.mv(f"held/{other}.json", "discarded/")
    assert (relay.ls("pending"), relay.ls("discarded")) == ([f"{one}.json"], [f"{other}.json"])
    await relay.mv(f"discarded/{other}.json", "retry/")
    assert relay.ls("discarded") == []
