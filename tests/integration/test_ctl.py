"""`.relay/ctl` and an fsync of `.relay`: what is asked of the whole mount."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.support.mount import Mount, until
from tests.support.ops import logged, paths, refuse, settled
from tests.support.server import RelayServer, serving

pytestmark = pytest.mark.mount


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayServer]:
    with serving(tmp_path_factory.mktemp("relay")) as running:
        running.put("/kept/f.txt", "old\n")
        yield running


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory, server: RelayServer) -> Iterator[Mount]:
    with Mount(
        tmp_path_factory.mktemp("ctl"), server, "--settle", "0.05", "--max-attempts", "2", "--drain", "1"
    ) as one:
        yield one


@pytest.fixture
def mount(mounted: Mount) -> Iterator[Mount]:
    """The module's mount; what a test leaves dead is given up after it, and nothing stays paused."""
    yield mounted
    mounted.sh("echo resume > $MOUNT/.relay/ctl")
    settled(mounted)


@pytest.mark.parametrize(
    "write",
    [
        "echo pause > $MOUNT/.relay/ctl",
        "echo pause >> $MOUNT/.relay/ctl",
        "echo pause | tee $MOUNT/.relay/ctl > /dev/null",
        "echo pause | tee -a $MOUNT/.relay/ctl > /dev/null",
        "printf 'pause\\n' > $MOUNT/.relay/ctl",
        "printf pause > $MOUNT/.relay/ctl",
        "{ printf 'pau'; echo se; } > $MOUNT/.relay/ctl",
        "{ printf 'pau'; sleep 0; /bin/true; echo se; } > $MOUNT/.relay/ctl",
        "echo pause > command; cp command $MOUNT/.relay/ctl",
        "truncate -s 0 $MOUNT/.relay/ctl; echo pause | dd of=$MOUNT/.relay/ctl status=none conv=fsync",
        "printf 'resume\\n\\n flush\\npause' > $MOUNT/.relay/ctl",
    ],
)
def test_every_way_to_write_a_command(mount: Mount, write: str) -> None:
    assert mount.sh(write).stderr == ""
    assert mount.status()["health"] == "paused"


def test_pause_resume_and_flush(mount: Mount) -> None:
    mount.sh("echo pause > $MOUNT/.relay/ctl; mkdir -p $MOUNT/ctl; echo x > $MOUNT/ctl/f")
    assert mount.status()["health"] == "paused"
    assert paths(mount, "pending") == {"/ctl/f"}
    mount.sh("printf 'resume\\nflush\\n' > $MOUNT/.relay/ctl")
    mount.delivered()
    assert mount.server.get("/ctl/f") == b"x\n"


def test_retry_all_and_of_one_provider_and_purge(mount: Mount) -> None:
    first, second = refuse(mount, "f", below="github")[0], refuse(mount, "f", below="slack")[0]
    mount.server.rules("")
    mount.sh("echo retry github > $MOUNT/.relay/ctl")
    mount.fsmount("wait", str(mount.point))
    assert (mount.server.get("/github/f"), mount.server.get("/slack/f")) == (b"mine\n", None)
    mount.sh("echo retry all > $MOUNT/.relay/ctl")
    mount.delivered()
    assert mount.server.get("/slack/f") == b"mine\n"
    assert first["opId"] != second["opId"]

    (letter,) = refuse(mount, "purged")
    op = letter["opId"]
    assert mount.sh(f"echo purge {op} > $MOUNT/.relay/ctl", check=False).returncode == 1, "it is not discarded yet"
    mount.sh(f"mv $MOUNT/.relay/dead-letter/{op}.json $MOUNT/.relay/discarded/; echo purge {op} > $MOUNT/.relay/ctl")
    until(lambda: mount.out(f"find $MOUNT/.relay -name '*{op}*'") == "", "it is forgotten")


@pytest.mark.parametrize("path", ["fresh", "/fresh", "./fresh/"])
def test_refresh_asks_the_remote_again(mount: Mount, path: str) -> None:
    mount.server.put("/fresh/one", "x\n")
    mount.sh("ls $MOUNT/fresh 2>/dev/null; true")
    asked = len([line for line in mount.server.requests() if "LIST" in line or "tree" in line])
    mount.sh(f"echo refresh {path} > $MOUNT/.relay/ctl; ls $MOUNT/fresh")
    assert len([line for line in mount.server.requests() if "LIST" in line or "tree" in line]) > asked


@pytest.mark.parametrize(
    "line",
    [
        "no such thing",
        "retry",
        "retry a/b",
        "release",
        "discard all",
        "purge op_none",
        "refresh ../up",
        "pause now",
        "\\xff",
    ],
)
def test_a_bad_command_fails_the_write_and_the_log_says_why(mount: Mount, line: str) -> None:
    done = mount.sh(f"printf 'pause\\n{line}\\n' > lines; cat lines > $MOUNT/.relay/ctl", check=False)
    assert done.returncode == 1
    assert "Invalid argument" in done.stderr
    assert logged(mount, "warning ctl.refused - - " + re.escape(line) + ": ")
    if line != "purge op_none":  # makes sense, but there is no such op
        assert mount.status()["health"] != "paused", "nothing of that write was done"


def test_reading_ctl_tells_its_usage(mount: Mount) -> None:
    usage = mount.out("cat $MOUNT/.relay/ctl")
    for command in ("retry all", "retry PROVIDER", "release held", "discard held", "purge OP", "refresh PATH", "pause"):
        assert f"\n{command} " in usage


# sync


def test_sync_waits_for_what_was_queued(mount: Mount) -> None:
    mount.server.rules("PUT /sync/** delay=0.3s times=1\n")
    mount.sh("mkdir -p $MOUNT/sync; echo x > $MOUNT/sync/good; sync $MOUNT/.relay")
    assert mount.server.get("/sync/good") == b"x\n"


def test_sync_fails_if_something_gave_up(mount: Mount) -> None:
    refuse(mount, "older", below="sync")
    mount.sh("echo y > $MOUNT/kept/f.txt; sync $MOUNT/.relay", timeout=10)
    assert mount.server.get("/kept/f.txt") == b"y\n"
    done = mount.sh("echo y > $MOUNT/sync/bad; sync $MOUNT/.relay", check=False)
    assert (done.returncode, "Input/output error" in done.stderr) == (1, True)
    assert logged(mount, r"request.failed .*not delivered: op_[0-9a-z]{26} \(/sync/bad\)")


def test_hidden_it_is_not_listed_but_there_and_sync_gives_up_in_time(
    server: RelayServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("hidden")
    with Mount(folder, server, "--hide-relay", "--timeout", "0.5", "--drain", "0") as hidden:
        assert ".relay" not in hidden.out("ls -A $MOUNT").split()
        assert "health" in hidden.out("cat $MOUNT/.relay/status")
        hidden.sh("echo pause > $MOUNT/.relay/ctl; echo x > $MOUNT/kept/paused")
        done = hidden.sh("sync $MOUNT/.relay", check=False, timeout=10)
        assert (done.returncode, "timed out" in done.stderr) == (1, True)
