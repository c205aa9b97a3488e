"""The mass-delete brake on a real mount: what a stray `rm -rf` took away comes back, and nothing goes at the server
until a person says so."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support.mount import Mount, until
from tests.support.ops import ops
from tests.support.server import RelayServer, serving

pytestmark = pytest.mark.mount

MANY = 60
LIMIT = 15
NAMES = ("undo", "release", "later", "crash", "ctl", "unsent", "few", "young", "create")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayServer]:
    with serving(tmp_path_factory.mktemp("relay")) as running:
        running.put_many({f"/{name}/d{n % 4}/f{n}": f"{name} {n}\n" for name in NAMES for n in range(MANY)})
        yield running


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory, server: RelayServer) -> Iterator[Mount]:
    options = ("--settle", "0.1", "--max-deletes", str(LIMIT), "--drain", "0.5")
    with Mount(tmp_path_factory.mktemp("brake"), server, *options) as one:
        one.sh("ls -R $MOUNT >/dev/null")
        yield one


@pytest.fixture
def mount(mounted: Mount) -> Iterator[Mount]:
    """The module's mount; the brake is off before and after each test."""
    yield mounted
    ctl(mounted, "discard held")
    ctl(mounted, "resume")
    until(lambda: not held(mounted), "nothing is held")


def ctl(mount: Mount, command: str) -> None:
    mount.sh(f"echo '{command}' > $MOUNT/.relay/ctl")


def held(mount: Mount) -> list[str]:
    return mount.out("ls $MOUNT/.relay/held").split()


def there(mount: Mount, name: str) -> set[str]:
    """What the server has of a directory."""
    return {entry.path for entry in mount.server.tree(f"/{name}") if entry.type == "file"}


def shown(mount: Mount, name: str) -> dict[str, str]:
    """What the mount shows of a directory: content by path."""
    listed = mount.out(
        f"cd $MOUNT && find {name} -type f -exec sh -c 'echo \"$1|$(cat $1)\"' - {{}} \\; 2>/dev/null; true"
    )
    return dict(line.split("|", 1) for line in listed.splitlines())


def all_of(name: str) -> dict[str, str]:
    return {f"{name}/d{n % 4}/f{n}": f"{name} {n}" for n in range(MANY)}


def remove(mount: Mount, name: str) -> None:
    """`rm -rf`, and the brake has seen it."""
    mount.sh(f"rm -rf $MOUNT/{name}")
    until(lambda: len(held(mount)) >= MANY, "the deletes are held")


def test_a_stray_removal_is_held_and_undone_with_mv(mount: Mount) -> None:
    remove(mount, "undo")
    assert mount.sh("ls $MOUNT/undo", check=False).returncode == 2, "it is gone here"
    assert mount.status()["health"] not in ("ok", "stopped")
    assert mount.status()["queue"]["held"] == len(held(mount))
    mount.sh("sleep 2.5")  # deletes rest for two seconds: by then they would have gone
    assert len(there(mount, "undo")) == MANY
    mount.sh("mv $MOUNT/.relay/held/*.json $MOUNT/.relay/discarded/")
    assert held(mount) == []
    assert shown(mount, "undo") == all_of("undo")
    mount.delivered()
    assert len(there(mount, "undo")) == MANY


def test_what_is_released_goes(mount: Mount) -> None:
    remove(mount, "release")
    mount.sh("mv $MOUNT/.relay/held/*.json $MOUNT/.relay/retry/")
    mount.delivered()
    assert there(mount, "release") == set()
    assert mount.sh("ls $MOUNT/release", check=False).returncode == 2


def test_every_later_delete_is_held_as_well(mount: Mount) -> None:
    remove(mount, "later")
    before = len(held(mount))
    mount.sh("rm $MOUNT/few/d0/f0")
    assert len(held(mount)) == before + 1
    mount.sh("echo new > $MOUNT/few/new")
    until(lambda: mount.server.get("/few/new") == b"new\n", "puts go on")
    assert mount.server.get("/few/d0/f0") is not None
    ctl(mount, "discard held")
    assert mount.out("cat $MOUNT/few/d0/f0") == "few 0\n"
    mount.sh("rm $MOUNT/few/d0/f0")
    mount.delivered()
    assert mount.server.get("/few/d0/f0") is None, "after the decision a single delete is none of the brake's business"


def test_commands_release_and_give_up_all(mount: Mount) -> None:
    remove(mount, "ctl")
    ctl(mount, "discard held")
    assert held(mount) == []
    assert shown(mount, "ctl") == all_of("ctl")
    remove(mount, "ctl")
    ctl(mount, "release held")
    mount.delivered()
    assert there(mount, "ctl") == set()
    lines = [json.loads(line) for line in mount.out("cat $MOUNT/.relay/events").splitlines()]
    events = {line["event"] for line in lines if (line.get("path") or "").startswith("/ctl/")}
    assert {"op.held", "op.discarded", "op.queued", "op.acknowledged"} <= events


def test_unsent_content_comes_back(mount: Mount) -> None:
    ctl(mount, "pause")
    # What lived shorter than it settles is nothing that anybody could miss.
    mount.sh("for n in 0 4 8; do echo changed $n > $MOUNT/unsent/d0/f$n; done; sleep 0.2")
    remove(mount, "unsent")
    ctl(mount, "discard held")
    expected = all_of("unsent") | {f"unsent/d0/f{n}": f"changed {n}" for n in (0, 4, 8)}
    assert shown(mount, "unsent") == expected
    ctl(mount, "resume")
    mount.delivered()
    assert mount.server.get("/unsent/d0/f4") == b"changed 4\n"
    assert len(there(mount, "unsent")) == MANY


def test_the_brake_outlives_the_daemon(mount: Mount) -> None:
    remove(mount, "crash")
    before = held(mount)
    mount.kill()
    mount.start()
    assert held(mount) == before
    assert mount.sh("ls $MOUNT/crash", check=False).returncode == 2, "it is still gone here"
    mount.sh("rm $MOUNT/few/d1/f1")
    assert len(held(mount)) == len(before) + 1, "and the brake is still on"
    assert len(there(mount, "crash")) == MANY
    mount.sh("mv $MOUNT/.relay/held/*.json $MOUNT/.relay/discarded/")
    assert shown(mount, "crash") == all_of("crash")


def test_a_file_made_anew_takes_the_place_of_its_held_delete(mount: Mount) -> None:
    remove(mount, "create")
    mount.sh("mkdir -p $MOUNT/create/d0 && echo new > $MOUNT/create/d0/f0")
    until(lambda: mount.server.get("/create/d0/f0") == b"new\n", "it replaces the old one")
    assert not [letter for letter in ops(mount, "held") if letter["path"] == "/create/d0/f0"]
    assert len(there(mount, "create")) == MANY


def test_what_this_mount_made_lately_does_not_count(mount: Mount) -> None:
    mount.sh("mkdir $MOUNT/made; for n in $(seq 40); do echo $n > $MOUNT/made/$n; done")
    mount.delivered()
    mount.sh("rm -rf $MOUNT/made")
    mount.delivered()
    assert held(mount) == []
    assert there(mount, "made") == set()
