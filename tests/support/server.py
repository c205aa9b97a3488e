"""The real embedded server in a process of its own, with what a test needs to look into it from outside."""

import base64
import functools
import json
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self
from urllib.parse import quote

import httpx
import msgspec
import pytest

from fsmount.server.tokens import Issuer, issuer
from fsmount.wire.relayfile import Event, EventPage, FileBody, TreeEntry, TreePage, WriteResult
from tests.support.stem import Fork, stem


class RelayServer:
    """One server over `folder`; `start` it, or use it in a `with`. Its rules and logs lie in the folder.

    Constructor options are those of ServeOptions. `restart` keeps the port and the files.
    """

    extensions = True
    """Of servers for which a test does not say it: the whole suite runs without them, too."""

    def __init__(self, folder: Path, **options: object) -> None:
        self.folder = folder
        self.data = folder / "served"
        self.rules_file = folder / "rules"
        self.access_log = folder / "access"
        self.stderr_file = folder / "stderr"
        self.workspace = str(options.get("workspace", "local"))
        self._options = options
        self._process: Fork | None = None
        self.port = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start, and return when it serves."""
        self.data.mkdir(mode=0o700, exist_ok=True)
        if not (self.data / "key.pem").exists():
            (self.data / "key.pem").write_bytes(_shared_key())
        options = {
            "data": str(self.data),
            "rules": str(self.rules_file),
            "access_log": str(self.access_log),
            "port": self.port,
            "extensions": self.extensions,
            **self._options,
        }
        with self.stderr_file.open("a") as stderr:
            self._process = stem().fork(options, stderr.fileno())
        self.serving_line = self._process.stdout.readline()
        if not self.serving_line:
            self._process.stdout.close()
            code = self._process.wait(10)
            self._process = None
            raise RuntimeError(f"the server ended with {code}: {self.stderr()}")
        self.remote, _, token_file = self.serving_line.removeprefix("serving ").rstrip("\n").partition("  token-file ")
        self.token_file = Path(token_file)
        self.token = self.token_file.read_text().strip()
        self.base = self.remote.removeprefix("relayfile+").rpartition("/")[0]
        self.port = int(self.base.rpartition(":")[2])
        self.http = httpx.Client(
            base_url=f"{self.base}/v1/workspaces/{quote(self.workspace, safe='')}/fs/",
            headers={"Authorization": f"Bearer {self.token}", "X-Correlation-Id": "test"},
            trust_env=False,
        )

    @property
    def process(self) -> Fork:
        assert self._process is not None, "not started"
        return self._process

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End it and give its exit code; nothing when it was not running."""
        if self._process is None:
            return 0
        self.http.close()
        self._process.send_signal(how)
        code = self._process.wait(10)
        self._process.stdout.close()
        self._process = None
        return code

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self.stop(signal.SIGKILL)

    def restart(self) -> None:
        """Stop, and start again on the same port with the same files."""
        self.stop()
        self.start()

    def put(self, path: str, content: str | bytes, if_match: str = "*") -> str:
        """Write a file and give its new revision; bytes travel as base64."""
        body = {"content": content, "contentType": "text/plain"}
        if isinstance(content, bytes):
            body = {
                "content": base64.b64encode(content).decode(),
                "encoding": "base64",
                "contentType": "application/octet-stream",
            }
        answer = self.http.put("file", params={"path": path}, json=body, headers={"If-Match": if_match})
        answer.raise_for_status()
        return msgspec.json.decode(answer.content, type=WriteResult).target_revision

    def put_many(self, files: dict[str, str]) -> None:
        """Write many small text files with few requests."""
        batch: list[dict[str, str]] = []
        room = 900_000
        for path, content in files.items():
            row = {"path": path, "content": content, "contentType": "text/plain"}
            weight = len(json.dumps(row)) + 2
            if batch and (weight > room or len(batch) == 500):
                self._bulk(batch)
                batch, room = [], 900_000
            batch.append(row)
            room -= weight
        if batch:
            self._bulk(batch)

    def _bulk(self, rows: list[dict[str, str]]) -> None:
        answer = self.http.post("bulk", json={"files": rows})
        answer.raise_for_status()
        assert answer.json()["errorCount"] == 0, answer.text

    def file(self, path: str) -> FileBody | None:
        """The file as the API gives it."""
        answer = self.http.get("file", params={"path": path})
        if answer.status_code == 404:
            return None
        answer.raise_for_status()
        return msgspec.json.decode(answer.content, type=FileBody)

    def get(self, path: str) -> bytes | None:
        """The bytes of a file; None where there is none."""
        body = self.file(path)
        if body is None:
            return None
        return base64.b64decode(body.content) if body.encoding == "base64" else body.content.encode()

    def delete(self, path: str, if_match: str = "*") -> None:
        self.http.delete("file", params={"path": path}, headers={"If-Match": if_match}).raise_for_status()

    def tree(self, path: str = "/", depth: int = 100) -> list[TreeEntry]:
        """Every entry below a path, all pages."""
        entries: list[TreeEntry] = []
        query: dict[str, str | int] = {"path": path, "depth": depth}
        while True:
            answer = self.http.get("tree", params=query)
            answer.raise_for_status()
            page = msgspec.json.decode(answer.content, type=TreePage)
            entries.extend(page.entries or ())
            if page.next_cursor is None:
                return entries
            query["cursor"] = page.next_cursor

    def files(self) -> dict[str, bytes]:
        """Every file with its bytes."""
        return {entry.path: self.get(entry.path) or b"" for entry in self.tree() if entry.type == "file"}

    def events(self, cursor: str = "") -> list[Event]:
        """The events after `cursor`, oldest first, at most 1,000."""
        answer = self.http.get("events", params={"cursor": cursor, "limit": 1000})
        answer.raise_for_status()
        return list(msgspec.json.decode(answer.content, type=EventPage).events or ())

    def rules(self, text: str) -> None:
        """Put these rules in force, whatever was before; they hold for the next request."""
        unfinished = self.rules_file.with_suffix(".new")
        unfinished.write_text(text)
        unfinished.replace(self.rules_file)

    def requests(self) -> list[str]:
        """`METHOD PATH STATUS` of every request until now, those of this object too."""
        return self.access_log.read_text().splitlines() if self.access_log.exists() else []

    def stderr(self) -> str:
        return self.stderr_file.read_text() if self.stderr_file.exists() else ""

    def sign(self, **claims: object) -> str:
        """A token with the usual claims, but for those given; None leaves one out."""
        merged = {**self._issuer.default_claims(self.workspace), **claims}
        return self._issuer.sign({name: value for name, value in merged.items() if value is not None})

    @functools.cached_property
    def _issuer(self) -> Issuer:
        return issuer(self.data)


@functools.cache
def _shared_key() -> bytes:
    # A key takes longer to make than a server to start.
    with tempfile.TemporaryDirectory() as folder:
        issuer(Path(folder))
        return (Path(folder) / "key.pem").read_bytes()


@contextmanager
def serving(folder: Path, **options: object) -> Iterator[RelayServer]:
    """A running server over `folder`."""
    folder.mkdir(exist_ok=True)
    with RelayServer(folder, **options) as server:
        yield server


@pytest.fixture
def relay_server(tmp_path: Path) -> Iterator[RelayServer]:
    """A running server of the test's own, without files and without rules."""
    with serving(tmp_path / "relay") as server:
        yield server
