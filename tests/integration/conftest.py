"""The mount that the tests of everyday programs share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.bench import Bench
from tests.support.server import serving


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """One server and one mount for the whole run."""
    folder = tmp_path_factory.mktemp("tools")
    with serving(folder / "relay") as server, Bench(folder, server) as mounted:
        yield mounted


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
