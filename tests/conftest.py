"""What every test shares: the switch that leaves real mounts out, and the reason shown when they cannot be made."""

import os
import shutil

import pytest
from hypothesis import settings
from trio.testing import MockClock

from tests.conformance import sections
from tests.support.clock import patient_clock
from tests.support.mount import mount
from tests.support.server import RelayServer, relay_server

__all__ = ["mount", "relay_server"]


# A run that is judged tries the same examples every time; by hand, hypothesis looks for new ones.
settings.register_profile("judged", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("judged")


@pytest.fixture
def autojump_clock() -> MockClock:
    """In the place of pytest-trio's, which does not wait for threads."""
    return patient_clock()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-mount", action="store_true", help="leave out the tests that need a real FUSE mount")
    foreign = parser.getgroup("relayfile", "the server that tests/conformance looks at, instead of our own")
    foreign.addoption("--relayfile-url", metavar="URL", default="", help="such as http://HOST:PORT")
    foreign.addoption("--relayfile-workspace", metavar="W", default="local", help="the workspace that the token opens")
    token = os.environ.get("RELAYFILE_TOKEN", "")
    foreign.addoption("--relayfile-token", metavar="TOKEN", default=token, help="with every scope  [$RELAYFILE_TOKEN]")
    parser.addoption("--no-extensions", action="store_true", help="mount servers that have only the plain API")


def pytest_configure(config: pytest.Config) -> None:
    RelayServer.extensions = not config.getoption("--no-extensions")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for test in items:
        sections.note(test)
        if test.get_closest_marker("exact_sizes") is not None and not RelayServer.extensions:
            test.add_marker(pytest.mark.skip(reason="without exact sizes a stat brings the content"))
    reason = _why_no_mount(config)
    if reason is None:
        return
    for test in items:
        if test.get_closest_marker("mount") is not None:
            test.add_marker(pytest.mark.skip(reason=reason))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    lines = sections.table(terminalreporter)
    if lines:
        terminalreporter.section("conformance to relayfile-api.md")
        for line in lines:
            terminalreporter.write_line(line)


def _why_no_mount(config: pytest.Config) -> str | None:
    if config.getoption("--no-mount"):
        return "--no-mount was given"
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "/dev/fuse cannot be opened here"
    if shutil.which("fusermount3") is None:
        return "fusermount3 is not installed"
    return None
