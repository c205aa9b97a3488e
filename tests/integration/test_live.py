"""The live feed of a mount: changes are told whatever becomes of the connection, and the token is told to nobody."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.mount import Mount, until
from tests.support.server import RelayServer, serving

pytestmark = pytest.mark.mount


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    with serving(tmp_path_factory.mktemp("relay")) as server, Mount(tmp_path_factory.mktemp("live"), server) as one:
        yield one


@pytest.fixture
def mount(mounted: Mount) -> Mount:
    """The module's mount, with a live feed."""
    mounted.server.rules("")
    lives(mounted)
    return mounted


def way(mount: Mount) -> str:
    found: str = mount.status()["connection"]["feed"]
    return found


def lives(mount: Mount) -> None:
    until(lambda: way(mount) == "live", "the feed is live", 15)


def told(mount: Mount) -> list[str]:
    """The revisions that the mount was told of."""
    whole, _, _ = (mount.state / "events").read_text().rpartition("\n")
    lines = [json.loads(line) for line in whole.splitlines()]
    return [line["revision"] for line in lines if line["event"] == "remote.changed"]


def test_status_says_that_changes_come_live(mount: Mount) -> None:
    assert "changes elsewhere: live" in mount.out("cat $MOUNT/.relay/status")
    assert 'feed="live"} 1' in mount.out("grep ^fsmount_feed $MOUNT/.relay/metrics")
    requests = mount.status()["counters"]["requests"]
    revision = mount.server.put("/told", "x")
    until(lambda: revision in told(mount), "the change is told")
    assert mount.status()["counters"]["requests"] == requests, "no request was needed"


def test_forced_disconnects_and_overflows_lose_no_event(mount: Mount) -> None:
    revisions: list[str] = []

    def write(times: int = 5) -> None:
        for _ in range(times):
            revisions.append(mount.server.put(f"/desk/{len(revisions) % 7}", f"{len(revisions)}\n"))

    for rule in ("refuse", "503"):
        write()
        mount.server.rules(f"EVENTS / {rule}\n")
        write()
        until(lambda: way(mount) != "live", "the feed is cut")
        write()
        mount.server.rules("")
        write()
        lives(mount)
    mount.server.put_many({f"/many/{number}": "" for number in range(4200)})
    write()
    until(lambda: revisions[-1] in told(mount), "the last change is told")
    everything = [event.revision for page in range(5) for event in mount.server.events(f"evt_{page * 1000}")]
    assert told(mount) == everything[len(everything) - len(told(mount)) :]
    assert [revision for revision in told(mount) if revision in set(revisions)] == revisions
    expected = "".join(f"{max(n for n in range(len(revisions)) if n % 7 == file)}\n" for file in range(7))
    assert mount.out("cat $MOUNT/desk/*") == expected


def test_the_token_is_nowhere(mount: Mount) -> None:
    mount.server.rules("EVENTS / 503\n")
    until(lambda: "no live feed" in mount.log(), "why it is not live is in the log")
    mount.server.rules("")
    lives(mount)
    secret = mount.server.token.rpartition(".")[2][:40]
    places = f"{mount.state} {mount.folder}/xdg-state {mount.folder}/cache {mount.server.access_log} $MOUNT/.relay"
    assert mount.sh(f"grep -rlF -e {secret} {places}", check=False).stdout == ""
    assert secret in Path(mount.server.token_file).read_text()


def test_a_change_is_seen_within_moments(mount: Mount) -> None:
    slowest = 0.0
    for number in range(1, 11):
        began = time.monotonic()
        revision = mount.server.put("/desk/f", f"{number}\n")
        until(lambda: revision in told(mount), "it is told")  # noqa: B023
        slowest = max(slowest, time.monotonic() - began)
    assert slowest < 1.0, "polling would take about a second each"


def test_a_token_for_a_part_of_the_tree_follows_that_part(tmp_path: Path, relay_server: RelayServer) -> None:
    relay_server.put("/mine/f", "old\n")
    token = tmp_path / "narrow"
    token.write_text(relay_server.sign(scopes=["fs:read", "relayfile:fs:read:/mine/**"]))
    token.chmod(0o600)
    with Mount(tmp_path, relay_server, "--token-file", str(token), remote=f"{relay_server.remote}/mine") as mount:
        lives(mount)
        assert mount.out("cat $MOUNT/f") == "old\n"
        revision = relay_server.put("/mine/f", "new\n")
        relay_server.put("/other", "x")
        until(lambda: told(mount) == [revision], "the change is told, and no other")
        assert mount.out("cat $MOUNT/f") == "new\n"
