"""The keys of another issuer: how long they are believed, and how often they are fetched."""

from pathlib import Path

import pytest

from fsmount.server.bearers import Bearers
from fsmount.server.jwks import GRACE, LIFETIME, PAUSE, TrustedKeys
from fsmount.server.messages import Rejected
from fsmount.server.principal import Principal
from fsmount.server.tokens import Issuer, issuer
from tests.support.raw import RawServer, always, raw_server, response


class World:
    """A server's own issuer, another, and time that passes when told."""

    def __init__(self, own: Issuer, other: Issuer) -> None:
        self.own = own
        self.other = other
        self.now = 0.0
        self.token = other.sign({**other.default_claims("local"), "sub": "stranger"})

    def keys(self) -> bytes:
        return response(200, self.other.jwks, connection="close")

    async def principal(self) -> Principal:
        """What the server makes of the token, as it does for a request."""
        await self.bearers.ready(self.token)
        return self.bearers.principal(self.token, "local")

    def trust(self, server: RawServer) -> None:
        self.bearers = Bearers(self.own, TrustedKeys(server.origin + "/jwks", lambda: self.now))


@pytest.fixture
def world(own_issuer: Issuer, tmp_path: Path) -> World:
    return World(own_issuer, issuer(tmp_path))


async def test_keys_are_fetched_once_in_their_lifetime(world: World) -> None:
    async with raw_server(always(world.keys())) as server:
        world.trust(server)
        for world.now in (0.0, LIFETIME / 2, LIFETIME):
            assert (await world.principal()).subject == "stranger"
        assert len(server.asked) == 1
        world.now = LIFETIME + 1
        await world.principal()
        assert len(server.asked) == 2


async def test_old_keys_serve_for_a_minute_while_there_are_no_new_ones(world: World) -> None:
    async with raw_server(always(world.keys(), response(500))) as server:
        world.trust(server)
        await world.principal()
        world.now = LIFETIME + GRACE
        assert (await world.principal()).subject == "stranger"
        world.now += 1
        with pytest.raises(Rejected) as refusal:
            await world.principal()
        assert (refusal.value.status, refusal.value.code) == (503, "unavailable")


@pytest.mark.parametrize(
    "answer",
    [response(500), b"", b"nonsense\r\n\r\n", response(200, b"{"), response(200, []), response(200, {"keys": []})],
)
async def test_whatever_the_issuer_answers_is_no_error_of_ours(world: World, answer: bytes) -> None:
    async with raw_server(always(answer)) as server:
        world.trust(server)
        with pytest.raises(Rejected) as refusal:
            await world.principal()
        assert refusal.value.status == 503


async def test_a_key_that_is_new_there_is_fetched_when_it_is_met(world: World) -> None:
    async with raw_server(always(response(200, world.own.jwks), world.keys())) as server:
        world.trust(server)
        for world.now in (0.0, PAUSE / 2):
            with pytest.raises(Rejected, match="unknown jwt kid"):
                await world.principal()
        assert len(server.asked) == 1  # not again within the pause
        world.now = PAUSE
        assert (await world.principal()).subject == "stranger"


async def test_own_tokens_need_no_issuer(world: World) -> None:
    async with raw_server(always(response(500))) as server:
        world.trust(server)
        world.token = world.own.sign(world.own.default_claims("local"))
        assert (await world.principal()).subject == "local"
        assert server.asked == []
