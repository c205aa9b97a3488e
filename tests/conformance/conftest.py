"""Conformance to relayfile-api.md, over HTTP: of our own server, or of any other.

    pytest tests/conformance
    pytest tests/conformance --relayfile-url http://HOST:PORT --relayfile-workspace W --relayfile-token TOKEN

Without a URL our own server is started, once with its extensions and once without. What needs tokens of other
claims, or a server with special switches, is skipped where the server is not ours. A test names its section with
the marker `section` (see sections.py); it writes only below `relay.place`.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conformance.target import Target
from tests.support.server import RelayServer, serving

Launch = Callable[..., Target]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "served" in metafunc.fixturenames:
        kinds = ["given"] if metafunc.config.getoption("--relayfile-url") else ["extensions", "plain"]
        metafunc.parametrize("served", kinds, indirect=True, scope="session")


@pytest.fixture(scope="session")
def served(request: pytest.FixtureRequest) -> Iterator[Target]:
    """The server under test."""
    option = request.config.getoption
    if request.param == "given":
        target = Target(option("--relayfile-url"), option("--relayfile-workspace"), option("--relayfile-token"))
        yield target
        target.http.close()
        return
    extensions = request.param == "extensions"
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder), extensions=extensions) as server:
        target = _of(server)
        yield target
        target.http.close()


@pytest.fixture
def relay(served: Target) -> Iterator[Target]:
    """The server under test, in a directory of this test's own."""
    served.move()
    yield served
    if served.sign is None:
        served.clean()


@pytest.fixture
def signing(relay: Target) -> Callable[..., str]:
    """Signs a token with other claims than the usual ones; None leaves a claim out."""
    if relay.sign is None:
        pytest.skip("tokens with other claims can only be made for our own server")
    return relay.sign


@pytest.fixture
def launch(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Launch]:
    """Starts a server of the test's own with these options of ServeOptions."""
    if request.config.getoption("--relayfile-url"):
        pytest.skip("only our own server can be started with other options")
    with ExitStack() as stack:

        def start(**options: object) -> Target:
            target = _of(stack.enter_context(serving(tmp_path / "special", **options)))
            stack.callback(target.http.close)
            target.move()
            return target

        yield start


def _of(server: RelayServer) -> Target:
    return Target(server.base, server.workspace, server.token, server.sign)
