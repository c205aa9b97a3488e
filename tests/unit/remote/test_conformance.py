"""The fake and the real client behave alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from fsmount.config import Credentials, parse_remote
from fsmount.model import Capabilities, Revision
from fsmount.remote.relayfile import RelayfileRemote
from tests.support.conformance import CHECKS, Check, check_remote
from tests.support.fake_remote import FakeRemote
from tests.support.notes import Notes
from tests.support.server import RelayServer, serving


class _Served:
    """The foreign writer of the embedded server."""

    def __init__(self, server: RelayServer) -> None:
        self._server = server

    def write(self, path: str, content: bytes) -> Revision:
        return Revision(self._server.put(path, content))

    def remove(self, path: str) -> None:
        self._server.delete(path)

    def content(self, path: str) -> bytes | None:
        return self._server.get(path)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_fake(check: Check) -> None:
    remote = FakeRemote()
    await check_remote(remote, remote, check)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_fake_without_sizes(check: Check) -> None:
    remote = FakeRemote(Capabilities(batch_put=True, feed=True))
    await check_remote(remote, remote, check)


@pytest.mark.parametrize("plain", [False, True], ids=["extended", "plain"])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_relayfile(check: Check, plain: bool, tmp_path: Path) -> None:
    with serving(tmp_path / "relay", extensions=not plain) as server:
        credentials = Credentials(token_file=server.token_file)
        async with RelayfileRemote(
            parse_remote(server.remote), credentials, timeout=5, log=Notes(), poll=0.02
        ) as remote:
            await check_remote(remote, _Served(server), check)
            assert remote.capabilities.exact_sizes is not plain
