"""A real mount that several tests share, each in a directory of its own: mounting takes longer than most of them."""

from __future__ import annotations

from collections import Counter

from tests.support.mount import Mount, until


class Bench(Mount):
    """A mount with ``$HERE``, the directory that the present test works in."""

    here = ""

    def work_in(self, directory: str) -> None:
        """``directory`` is the test's own from now on; whether it is there is the caller's business."""
        self.here = directory
        self.environment["HERE"] = f"{self.point}/{directory}"

    def run(self, script: str, *, timeout: float = 30.0) -> str:
        """Runs shell commands in the test's directory; any that fails, or says anything on stderr, fails the test."""
        done = self.sh(f"set -e -o pipefail; cd $HERE\n{script}", timeout=timeout)
        assert done.stderr == ""
        return done.stdout

    def served(self) -> dict[str, bytes]:
        """What the server has of the test's directory once everything is delivered, by path below it."""
        self.delivered()
        prefix = f"/{self.here}/"
        paths = [entry.path for entry in self.server.tree(f"/{self.here}") if entry.type == "file"]
        return {path.removeprefix(prefix): self.server.get(path) or b"" for path in paths}

    def hashed(self) -> dict[str, str | None]:
        """As ``served``, but only the digests that the server gives of the bytes it holds: quick for many files."""
        self.delivered()
        prefix = f"/{self.here}/"
        entries = [entry for entry in self.server.tree(f"/{self.here}") if entry.type == "file"]
        return {entry.path.removeprefix(prefix): entry.content_hash for entry in entries}

    def written(self, since: int) -> Counter[str]:
        """The file events of the test's directory after a number: `TYPE NAME`."""
        found: Counter[str] = Counter()
        for event in self.server.events(f"evt_{since}" if since else ""):
            if event.path.startswith(f"/{self.here}/"):
                found[f"{event.type.removeprefix('file.')} {event.path.removeprefix(f'/{self.here}/')}"] += 1
        return found

    def now(self) -> int:
        """The number of the server's last event."""
        answer = self.server.http.get("events", params={"direction": "desc", "limit": 1}).json()["events"]
        return int(answer[0]["eventId"].removeprefix("evt_")) if answer else 0

    def see(self, name: str) -> None:
        """Waits until the mount shows what the server got from elsewhere."""
        until(lambda: self.sh(f"test -e $HERE/{name}", check=False).returncode == 0, f"{name} is seen")
