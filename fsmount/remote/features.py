"""The extensions that a server announces in ``GET /health``.

Invariant: they are asked for once, and again whenever the remote is probed or one turns out to be missing.
"""

from __future__ import annotations

from fsmount.errors import InvalidAnswer, Refusal
from fsmount.remote.http import Call, Client
from fsmount.wire.relayfile import Health

BYTE_SIZE = "byte-size"
RAW = "raw"


class Features:
    """What one server has beyond the plain API; ``known`` is None before it was asked."""

    def __init__(self, client: Client, known: frozenset[str] | None) -> None:
        self._client = client
        self._known = known

    @property
    def are_known(self) -> bool:
        """Whether the server was ever asked, so that what is not in here is known to be missing."""
        return self._known is not None

    @property
    def any(self) -> bool:
        """Whether the server announced something: then it is one of ours."""
        return bool(self._known)

    def __contains__(self, name: str) -> bool:
        """Whether the server is known to have it."""
        return self._known is not None and name in self._known

    async def learn(self) -> None:
        """Asks where nothing is known yet. Raises RemoteError."""
        if self._known is None:
            await self.ask()

    async def ask(self) -> None:
        """Asks now; a server without that route, or with another one there, has none. Raises RemoteError.

        Whether it is a relayfile server at all is not told by this route.
        """
        call = Call(method="GET", target="/health", anonymous=True)
        try:
            health = self._client.decoded(call, await self._client.request(call), Health)
            self._known = frozenset(health.features or ())
        except InvalidAnswer:
            self._known = frozenset()
        except Refusal as refusal:
            if refusal.status >= 500 or refusal.status in (408, 425, 429):
                raise
            self._known = frozenset()
