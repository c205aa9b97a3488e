"""``fsmount serve`` as it is run."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen


@contextmanager
def served(home: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str, Path]]:
    """The process, the origin and the token file, from its one line."""
    environment = {**os.environ, "XDG_STATE_HOME": str(home / "state")}
    with subprocess.Popen(
        [sys.executable, "-m", "fsmount", "serve", *options],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        cwd=home,
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            remote, _, token_file = line.removeprefix("serving relayfile+").rstrip("\n").partition("  token-file ")
            yield process, remote.rpartition("/")[0], Path(token_file)
        finally:
            process.kill()


def test_its_line_says_all_that_a_mount_needs(tmp_path: Path) -> None:
    with served(tmp_path, "--data", str(tmp_path / "d")) as (_, origin, token_file):
        assert token_file == tmp_path / "d" / "token"
        assert token_file.read_text().strip()
        with urlopen(f"{origin}/health", timeout=10) as answer:
            assert answer.status == 200


def test_without_extensions_it_announces_none(tmp_path: Path) -> None:
    with served(tmp_path, "--no-extensions") as (_, origin, _), urlopen(f"{origin}/health", timeout=10) as answer:
        assert answer.read() == b'{"status":"ok","features":[]}'


def test_without_data_it_keeps_to_the_state_home(tmp_path: Path) -> None:
    with served(tmp_path) as (_, _, token_file):
        assert token_file == tmp_path / "state" / "fsmount" / "serve" / "token"


def test_sigterm_ends_it_at_once(tmp_path: Path) -> None:
    with served(tmp_path) as (process, _, _):
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert time.monotonic() - started < 1


def test_an_address_that_is_taken_is_said(tmp_path: Path) -> None:
    with served(tmp_path, "--data", str(tmp_path / "one")) as (_, origin, _):
        done = subprocess.run(
            [sys.executable, "-m", "fsmount", "serve", "--data", "two", "--listen", origin.removeprefix("http://")],
            capture_output=True, text=True, cwd=tmp_path, timeout=20, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("fsmount: error: ")


def test_its_limits_are_those_asked_for(tmp_path: Path) -> None:
    with served(tmp_path, "--rate-limit", "2", "--body-cap", "10") as (_, origin, token_file):
        headers = {"Authorization": f"Bearer {token_file.read_text().strip()}", "X-Correlation-Id": "c"}

        def status(body: bytes | None) -> int:
            request = Request(f"{origin}/v1/workspaces/local/fs/bulk", data=body, headers=headers)
            try:
                return int(urlopen(request, timeout=10).status)
            except HTTPError as error:
                with error:
                    return error.code

        assert status(b"x" * 11) == 413
        assert 429 in {status(b"x") for _ in range(4)}
