"""What reaches the remote of what programs do: coalescing, order, renames, refusals and a person's decisions."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.mount import Mount, until
from tests.support.ops import Letter, history, ops, revision, settled
from tests.support.server import RelayServer, serving

pytestmark = pytest.mark.mount


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayServer]:
    with serving(tmp_path_factory.mktemp("relay")) as running:
        names = ("saves", "temporary", "backup", "sed", "rename", "over", "order", "again", "discard", "bytes", "gone")
        running.put_many({f"/{name}/f.txt": "old\n" for name in names})
        yield running


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory, server: RelayServer) -> Iterator[Mount]:
    with Mount(tmp_path_factory.mktemp("queue"), server, "--settle", "0.25", "--max-attempts", "2") as one:
        yield one


@pytest.fixture
def mount(mounted: Mount) -> Iterator[Mount]:
    """The module's mount; what a test leaves dead is given up after it."""
    yield mounted
    settled(mounted)


def dead(mount: Mount, path: str) -> Letter:
    """The dead letter of a path, waited for."""

    def found() -> list[Letter]:
        return [letter for letter in ops(mount, "dead-letter") if path in (letter["path"], letter["toPath"])]

    until(lambda: bool(found()), f"{path} is a dead letter")
    (letter,) = found()
    return letter


def test_a_burst_of_saves_is_one_put(mount: Mount) -> None:
    mount.sh("for n in 1 2 3 4 5; do echo $n > $MOUNT/saves/f.txt; echo $n > $MOUNT/saves/new.txt; done")
    mount.delivered()
    assert history(mount, "/saves/f.txt") == ["created", "updated"]
    assert history(mount, "/saves/new.txt") == ["created"]
    assert (mount.server.get("/saves/f.txt"), mount.server.get("/saves/new.txt")) == (b"5\n", b"5\n")


def test_a_file_that_is_still_open_is_not_sent(mount: Mount) -> None:
    mount.sh("{ echo a; sleep 1; /bin/echo b; } > $MOUNT/saves/both.txt")
    mount.delivered()
    assert history(mount, "/saves/both.txt") == ["created"]
    assert mount.server.get("/saves/both.txt") == b"a\nb\n"


def test_a_temporary_that_is_renamed_is_one_put(mount: Mount) -> None:
    before = revision(mount, "/temporary/f.txt")
    mount.sh("cd $MOUNT/temporary && echo new > t1 && mv t1 f.txt && echo fresh > t2 && mv t2 fresh.txt")
    out = mount.out("cat $MOUNT/.relay/pending/*")
    assert (out.count('"kind": "put"'), out.count('"kind"')) == (2, 2)
    assert f'"baseRevision": "{before}"' in out
    mount.delivered()
    assert history(mount, "/temporary/f.txt") == ["created", "updated"]
    assert history(mount, "/temporary/fresh.txt") == ["created"]
    assert history(mount, "/temporary/t1") == history(mount, "/temporary/t2") == []
    assert mount.server.get("/temporary/f.txt") == b"new\n"


def test_an_editor_that_keeps_a_backup_sends_one_put(mount: Mount) -> None:
    mount.sh("cd $MOUNT/backup && mv f.txt f.txt~ && echo new > f.txt && rm f.txt~")
    mount.delivered()
    assert history(mount, "/backup/f.txt") == ["created", "updated"]
    assert history(mount, "/backup/f.txt~") == []
    assert mount.out("ls $MOUNT/backup") == "f.txt\n"


def test_sed_in_place_sends_one_put(mount: Mount) -> None:
    mount.sh("sed -i s/old/new/ $MOUNT/sed/f.txt")
    mount.delivered()
    assert [
        (entry.path, mount.server.get(entry.path)) for entry in mount.server.tree("/sed") if entry.type == "file"
    ] == [("/sed/f.txt", b"new\n")]
    assert history(mount, "/sed/f.txt") == ["created", "updated"]


def test_what_was_made_and_removed_is_not_sent(mount: Mount) -> None:
    mount.sh("echo x > $MOUNT/gone/made.txt; rm $MOUNT/gone/made.txt")
    assert mount.out("ls $MOUNT/.relay/pending") == ""
    mount.sh("echo x > $MOUNT/gone/after.txt")
    mount.delivered()
    assert (history(mount, "/gone/made.txt"), history(mount, "/gone/after.txt")) == ([], ["created"])


def test_a_rename_is_one_op(mount: Mount) -> None:
    assert mount.out("cat $MOUNT/rename/f.txt") == "old\n"
    out = mount.out("mv $MOUNT/rename/f.txt $MOUNT/rename/g.txt; cat $MOUNT/.relay/pending/*; cat $MOUNT/rename/g.txt")
    assert (out.count('"kind": "move"'), out.count('"kind"'), out.endswith("old\n")) == (1, 1, True)
    assert '"toPath": "/rename/g.txt"' in out
    mount.delivered()
    assert (history(mount, "/rename/g.txt"), history(mount, "/rename/f.txt")) == (["created"], ["created", "deleted"])
    assert mount.server.get("/rename/g.txt") == b"old\n"
    assert mount.out("ls $MOUNT/rename") == "g.txt\n"


def test_a_rename_over_a_file_replaces_it(mount: Mount) -> None:
    mount.server.put("/over/g.txt", "to be replaced\n")
    until(lambda: "g.txt" in mount.out("ls $MOUNT/over"), "the mount sees it")
    mount.sh("mv $MOUNT/over/f.txt $MOUNT/over/g.txt")
    mount.delivered()
    assert (history(mount, "/over/g.txt"), mount.server.get("/over/g.txt")) == (["created", "updated"], b"old\n")
    assert mount.server.get("/over/f.txt") is None


def test_what_comes_later_waits_for_what_came_before(mount: Mount) -> None:
    mount.server.rules("PUT /order/** delay=1s times=1\n")
    mount.sh("echo one > $MOUNT/order/f.txt")
    until(lambda: [op["state"] for op in ops(mount, "pending")] == ["sending"], "it is being sent")
    mount.sh("mv $MOUNT/order/f.txt $MOUNT/order/g.txt; echo two >> $MOUNT/order/g.txt")
    mount.sh("echo three > $MOUNT/order/f.txt")
    mount.delivered()
    assert mount.server.get("/order/g.txt") == b"one\ntwo\n"
    assert mount.server.get("/order/f.txt") == b"three\n"
    assert history(mount, "/order/f.txt") == ["created", "updated", "deleted", "created"]

    mount.server.rules("PUT /order/** delay=1s times=1\n")
    mount.sh("echo four > $MOUNT/order/f.txt")
    until(lambda: [op["state"] for op in ops(mount, "pending")] == ["sending"], "it is being sent")
    mount.sh("mv $MOUNT/order/f.txt $MOUNT/order/h.txt; rm $MOUNT/order/h.txt")
    mount.delivered()
    assert (mount.server.get("/order/f.txt"), history(mount, "/order/h.txt")) == (None, [])
    assert mount.out("ls $MOUNT/order") == "g.txt\n"


def test_a_later_save_supersedes_a_dead_letter(mount: Mount) -> None:
    mount.server.rules('PUT /again/** 422 {"message":"no"}\n')
    mount.sh("echo bad > $MOUNT/again/f.txt")
    letter = dead(mount, "/again/f.txt")
    mount.server.rules("")
    out = mount.out("echo good > $MOUNT/again/f.txt; ls $MOUNT/.relay/pending")
    newer = out.strip().removesuffix(".json")
    refused = mount.sh(f"mv $MOUNT/.relay/dead-letter/{letter['opId']}.json $MOUNT/.relay/retry/", check=False)
    assert (refused.returncode, "Device or resource busy" in refused.stderr) == (1, True)
    assert f"verb.refused {letter['opId']} /again/f.txt" in mount.log()
    mount.delivered()
    assert mount.server.get("/again/f.txt") == b"good\n"
    (old,) = [op for op in ops(mount, "discarded") if op["opId"] == letter["opId"]]
    assert (old["state"], old["supersededBy"]) == ("discarded", newer)
    assert mount.out(f"cat $MOUNT/.relay/content/{letter['opId']}") == "bad\n"
    assert all(op["opId"] != letter["opId"] for op in ops(mount, "dead-letter"))


def test_giving_up_a_dead_letter_shows_the_older_state_and_can_be_undone(mount: Mount) -> None:
    mount.server.rules('PUT /discard/** 422 {"message":"no"}\n')
    mount.sh("echo mine > $MOUNT/discard/f.txt; echo new > $MOUNT/discard/new.txt")
    op, new = dead(mount, "/discard/f.txt")["opId"], dead(mount, "/discard/new.txt")["opId"]
    assert mount.out("cat $MOUNT/discard/f.txt $MOUNT/discard/new.txt") == "mine\nnew\n"
    done = mount.sh("mv $MOUNT/.relay/dead-letter/*.json $MOUNT/.relay/discarded/")
    assert done.stderr == ""
    assert mount.out("cat $MOUNT/discard/f.txt; ls $MOUNT/discard") == "old\nf.txt\n"
    assert mount.out(f"cat $MOUNT/.relay/content/{op}") == "mine\n"

    mount.server.rules("")
    mount.sh(f"mv $MOUNT/.relay/discarded/{new}.json $MOUNT/.relay/retry/")
    mount.delivered()
    assert mount.server.get("/discard/new.txt") == b"new\n"
    assert mount.out("cat $MOUNT/discard/new.txt") == "new\n"
    mount.sh(f"cp $MOUNT/.relay/content/{op} $MOUNT/discard/f.txt")
    mount.delivered()
    assert mount.server.get("/discard/f.txt") == b"mine\n"


def test_a_refused_file_that_is_removed_is_gone(mount: Mount) -> None:
    mount.server.rules('PUT /gone/** 422 {"message":"no"}\n')
    mount.sh("echo x > $MOUNT/gone/refused.txt")
    dead(mount, "/gone/refused.txt")
    mount.sh("rm $MOUNT/gone/refused.txt")
    assert mount.sh("cat $MOUNT/gone/refused.txt", check=False).returncode == 1
    assert ops(mount, "pending") == ops(mount, "dead-letter") == []
    assert history(mount, "/gone/refused.txt") == []


def test_what_kind_of_refusal_it_is(mount: Mount) -> None:
    mount.server.rules(
        "PUT /kinds/large 413\nPUT /kinds/closed 403\nPUT /kinds/ill 500\nDELETE /gone/** 403\n"
        'PUT /kinds/odd 422 {"code":"validation_error"}\n'
    )
    mount.sh("cd $MOUNT && mkdir kinds && for n in large closed odd ill; do echo $n > kinds/$n; done; rm gone/f.txt")
    until(lambda: len(ops(mount, "dead-letter")) == 5, "all are dead letters", 15)
    reasons = {letter["path"]: (letter["reason"], letter["lastStatus"]) for letter in ops(mount, "dead-letter")}
    assert reasons == {
        "/kinds/large": ("too-large", 413),
        "/kinds/closed": ("forbidden", 403),
        "/kinds/odd": ("rejected", 422),
        "/kinds/ill": ("exhausted", 500),
        "/gone/f.txt": ("forbidden", 403),
    }
    assert mount.out("cat $MOUNT/gone/f.txt") == "old\n"


def test_bytes_arrive_as_they_were_written(mount: Mount) -> None:
    mount.sh(
        "cd $MOUNT/bytes && head -c 600001 /dev/urandom > large && cp large ../../kept"
        " && printf '\\xff\\x00\\n' > odd && : > empty"
        " && echo more >> f.txt && printf X | dd of=f.txt conv=notrunc bs=1 seek=1 status=none && truncate -s 6 f.txt"
    )
    mount.delivered()
    assert mount.server.get("/bytes/large") == (mount.folder / "kept").read_bytes()
    assert mount.server.get("/bytes/odd") == b"\xff\x00\n"
    assert mount.server.get("/bytes/empty") == b""
    assert mount.server.get("/bytes/f.txt") == b"oXd\nmo"
    assert history(mount, "/bytes/large") == ["created"]


def test_many_small_files_travel_together(mount: Mount) -> None:
    mount.sh("mkdir many && cd many && seq 400 | split -l 1 -a 3 - f")
    before = len(mount.server.requests())
    mount.sh("cd many && tar c . | tar x -C $MOUNT/bytes")
    mount.delivered()
    assert len(mount.server.requests()) - before < 30
    assert sum(entry.path.startswith("/bytes/f") for entry in mount.server.tree("/bytes")) == 401


def test_a_directory_comes_and_goes(mount: Mount) -> None:
    mount.sh("cd $MOUNT && mkdir -p coming/and && echo x > coming/and/going.txt")
    mount.delivered()
    assert mount.server.get("/coming/and/going.txt") == b"x\n"
    mount.sh("rm -r $MOUNT/coming")
    assert mount.sh("ls $MOUNT/coming", check=False).returncode == 2
    mount.delivered()
    assert mount.server.tree("/coming") == []
    assert mount.sh("ls $MOUNT/coming", check=False).returncode == 2
