"""A mount of a relayfile server that is not ours, and speaks as those built on relayfile's TypeScript core do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.dialect import speaking_otherwise
from tests.support.mount import Mount, until
from tests.support.server import RelayServer


@pytest.fixture
def other(tmp_path: Path, relay_server: RelayServer) -> Iterator[Mount]:
    """With a past of some changes."""
    for number in range(5):
        relay_server.put(f"/notes/{number}", f"{number}\n")
    relay_server.delete("/notes/4")
    with speaking_otherwise(relay_server) as remote, Mount(tmp_path, relay_server, remote=remote) as mounted:
        yield mounted


def shows(mount: Mount, content: str, path: str = "notes/0") -> None:
    until(lambda: mount.sh(f"cat $MOUNT/{path}", check=False).stdout == content, f"{path} is {content!r}")


def test_a_day_on_another_server(other: Mount) -> None:
    server = other.server
    assert other.out("ls $MOUNT/notes; cat $MOUNT/notes/*").split() == ["0", "1", "2", "3"] * 2
    other.sh("cd $MOUNT/notes && echo mine > 1 && mkdir d && for n in {1..30}; do echo $n > d/f$n; done")
    other.sh("cd $MOUNT/notes && printf '\\0\\377' > binary && : > empty && sed -i s/2/two/ 2")
    other.delivered()
    other.sh("cd $MOUNT/notes && mv d moved && rm 3 empty")
    other.delivered()
    assert (server.get("/notes/1"), server.get("/notes/2")) == (b"mine\n", b"two\n")
    assert server.get("/notes/binary") == b"\0\xff"
    assert {name: content for name, content in server.files().items() if name.startswith("/notes/moved/")} == {
        f"/notes/moved/f{n}": f"{n}\n".encode() for n in range(1, 31)
    }
    assert (server.get("/notes/3"), server.get("/notes/empty"), server.get("/notes/d/f1")) == (None, None, None)

    server.put("/notes/0", "theirs\n")
    server.put("/new/deep/file", "x")
    shows(other, "theirs\n")
    shows(other, "x", "new/deep/file")
    server.delete("/new/deep/file")
    until(lambda: other.sh("test -e $MOUNT/new", check=False).returncode != 0, "the directory goes")
    server.rules('PUT /notes/bad 422 {"code":"schema_violation","message":"title is required"}\n')
    other.sh("echo x > $MOUNT/notes/bad")
    assert other.dead_letter()["reason"] == "rejected"
