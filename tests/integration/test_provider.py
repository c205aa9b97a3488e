"""What fails behind the server after it accepted a write, on a real mount."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

from tests.support.mount import Mount, until
from tests.support.server import RelayServer, serving

NOTE = "/github/a.json"


class Consumer:
    """Plays the provider behind the server: takes what is queued for it, or does not."""

    def __init__(self, server: RelayServer) -> None:
        self._http = httpx.Client(
            base_url=f"{server.base}/v1/workspaces/{server.workspace}/",
            headers={"Authorization": f"Bearer {server.token}", "X-Correlation-Id": "consumer"},
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def waiting(self, path: str) -> list[str]:
        """The ops of a path that the provider has yet to take."""
        answer = self._http.get("writeback/pending")
        answer.raise_for_status()
        return [each["id"] for each in answer.json() if each["path"] == path]

    def take(self, op: str, **how: object) -> None:
        """The provider took it; with ``error`` it did not."""
        body = {"success": "error" not in how, **how}
        self._http.post(f"writeback/{op}/ack", json=body).raise_for_status()

    def refuse(self, path: str, error: str = "no such issue") -> str:
        """The newest op of a path, which fails."""
        op = self.waiting(path)[-1]
        self.take(op, error=error)
        return op


@pytest.fixture
def consumer(relay_server: RelayServer) -> Iterator[Consumer]:
    with Consumer(relay_server) as made:
        yield made


def saved(mount: Mount, content: str = "{}") -> None:
    mount.sh(f"mkdir -p $MOUNT/github; echo '{content}' > $MOUNT{NOTE}")
    mount.delivered()


def test_it_is_a_dead_letter_that_retry_replays_there(mount: Mount, consumer: Consumer) -> None:
    saved(mount)
    op = consumer.refuse(NOTE)
    letter: dict[str, Any] = mount.dead_letter()
    assert (letter["reason"], letter["remoteOpId"], letter["path"]) == ("provider-failed", op, NOTE)
    assert "github failed with it: no such issue" in letter["message"]
    assert json.loads(letter["lastBody"])["lastError"] == "no such issue"
    # The path is clean, and goes on being what the server has.
    assert mount.out(f"cat $MOUNT{NOTE}; getfattr --only-values -n user.relay.state $MOUNT{NOTE}") == "{}\nclean"
    assert mount.status()["health"] == "failing"
    assert mount.status()["failedWritebacks"] == 1
    assert mount.fsmount("writeback", "status", str(mount.point)).returncode == 1
    mount.sh(f"mv $MOUNT/.relay/dead-letter/{letter['opId']}.json $MOUNT/.relay/retry/")
    until(lambda: consumer.waiting(NOTE) == [op], "it waits for its provider again")
    until(lambda: mount.status()["health"] == "ok", "nothing is unresolved here")
    consumer.refuse(NOTE, "still no such issue")
    again = mount.dead_letter()
    assert (again["opId"], again["attempts"], len(again["history"])) == (letter["opId"], 2, 2)
    saved(mount, "better")
    assert mount.status()["queue"]["deadLetter"] == 0


def test_what_fails_while_nothing_is_mounted_is_found_at_the_next_mount(mount: Mount, consumer: Consumer) -> None:
    saved(mount)
    mount.umount()
    op = consumer.refuse(NOTE)
    mount.start()
    letter = mount.dead_letter()
    assert letter["remoteOpId"] == op
    mount.umount()
    done = mount.fsmount("writeback", "retry", "--opId", letter["opId"], "--state-dir", str(mount.state))
    assert done.returncode == 0, done.stderr
    mount.start()
    until(lambda: consumer.waiting(NOTE) == [op], "it waits for its provider again")


def test_where_ops_may_not_be_read_the_status_says_so(tmp_path: Path) -> None:
    with serving(tmp_path / "relay") as server:
        server.token_file = tmp_path / "token"
        server.token_file.write_text(server.sign(scopes=["fs:read", "fs:write"]))
        server.token_file.chmod(0o600)
        with Mount(tmp_path, server) as mount, Consumer(server) as consumer:
            assert mount.status()["providerResults"] == "unknown"
            assert "provider results: unknown" in mount.out("cat $MOUNT/.relay/status")
            saved(mount)
            consumer.refuse(NOTE)
            assert mount.dead_letter()["reason"] == "provider-failed"


def test_a_draft_that_the_provider_names_is_followed(mount: Mount, consumer: Consumer) -> None:
    saved(mount)
    mount.sh(f"chmod 640 $MOUNT{NOTE}")
    before = mount.out(f"stat -c %i $MOUNT{NOTE}")
    # A program has it open for writing while its name changes.
    writer = subprocess.Popen(
        ["timeout", "-s", "KILL", "20", "bash", "-c",
         f"exec 3<>$MOUNT{NOTE}; printf '[1, ' >&3; echo held; read; printf '2]' >&3; exec 3>&-"],
        env=mount.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert writer.stdout is not None
    assert writer.stdout.readline() == "held\n"
    consumer.take(consumer.waiting(NOTE)[-1], externalId="42", canonicalPath="/github/42.json")
    until(lambda: mount.out("ls $MOUNT/github") == "42.json\n", "it has its new name")
    assert mount.out("stat -c '%i %a' $MOUNT/github/42.json") == f"{before.strip()} 640\n"
    writer.communicate("\n", timeout=20)
    mount.delivered()
    assert mount.server.get("/github/42.json") == b"[1, 2]"
    assert mount.server.file(NOTE) is None
