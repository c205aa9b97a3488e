"""The mount that the tests of everyday programs share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.bench import Bench
from tests.support.server import RelayServer, serving


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """One server and one mount for the whole run."""
    folder = tmp_path_factory.mktemp("tools")
    with serving(folder / "relay") as server, Bench(folder, server) as mounted:
        yield mounted


@pytest.fixture
def token(tmp_path: Path, relay_server: RelayServer) -> Path:
    """A credential file of the test's own, to be rotated."""
    file = tmp_path / "token"
    file.write_text(f"{relay_server.token}\n")
    file.chmod(0o600)
    return file


@pytest.fixture
def bench(shared: Bench, request: pytest.FixtureRequest) -> Bench:
    """The shared mount, in a directory of the test's own."""
    shared.work_in(request.node.name.replace("[", "-").replace("]", ""))
    shared.environment |= {
        "HOME": str(shared.folder),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example.com",
        "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@example.com",
    }  # fmt: skip
    shared.sh("mkdir $HERE")
    return shared
